SELECT archived_before FROM symbol_state WHERE symbol = %(symbol)s
