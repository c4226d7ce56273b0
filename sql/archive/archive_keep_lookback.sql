-- Of the bars that were just taken out, the last ones stay for the features of later bars to look back to.
INSERT INTO lookback_bars (symbol, timestamp, open, high, low, close, volume)
SELECT * FROM (
    SELECT symbol, timestamp, open, high, low, close, volume FROM {bars} WHERE is_final
    UNION ALL
    SELECT symbol, timestamp, open, high, low, close, volume FROM {lookback}
) AS history
ORDER BY timestamp DESC LIMIT %(lookback)s
