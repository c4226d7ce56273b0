SELECT stale_from, feature_version FROM symbol_state WHERE symbol = %(symbol)s FOR UPDATE
