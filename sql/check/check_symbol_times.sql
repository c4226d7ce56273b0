SELECT symbol, MAX(timestamp) FROM market_data GROUP BY symbol LIMIT 10
