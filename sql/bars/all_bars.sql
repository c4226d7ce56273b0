SELECT timestamp, open, high, low, close, volume FROM market_data WHERE symbol = %(symbol)s ORDER BY timestamp
