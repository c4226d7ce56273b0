UPDATE quarantined_bars SET released_at = NULL WHERE symbol = %(symbol)s AND released_at IS NOT NULL
