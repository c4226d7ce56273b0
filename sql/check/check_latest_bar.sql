SELECT MAX(timestamp) FROM market_data
