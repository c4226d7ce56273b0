SELECT DISTINCT timestamp FROM quarantined_bars WHERE symbol = %(symbol)s AND released_at IS NOT NULL
