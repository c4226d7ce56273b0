-- A symbol's bars since an instant, with the features that its page draws; null where there is none.
SELECT
    timestamp, open, high, low, close, volume, is_final,
    sma_short, sma_med, sma_long, bb_upper, bb_lower, rsi, macd, macd_signal, macd_histogram
FROM market_data
LEFT JOIN feature_engineered_data USING (symbol, timestamp)
WHERE symbol = %(symbol)s AND timestamp >= %(since)s
ORDER BY timestamp
