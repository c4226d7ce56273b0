SELECT min(timestamp) FROM market_data WHERE symbol = %(symbol)s
