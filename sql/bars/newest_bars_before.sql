SELECT timestamp, open, high, low, close, volume FROM feature_history
WHERE symbol = %(symbol)s AND timestamp < %(before)s
ORDER BY timestamp DESC LIMIT %(limit)s
