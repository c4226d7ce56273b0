SELECT max(timestamp) FROM market_data WHERE symbol = %(symbol)s AND is_final
