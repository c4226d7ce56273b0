DELETE FROM lookback_bars WHERE symbol = %(symbol)s
