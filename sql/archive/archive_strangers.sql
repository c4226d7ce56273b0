-- Bars that later features look back to and that do not come back from the archive with the same prices.
SELECT count(*)
FROM lookback_bars AS kept
LEFT JOIN (
    SELECT timestamp, close FROM {bars}
    UNION ALL
    SELECT timestamp, close FROM {lookback}
) AS back USING (timestamp)
WHERE kept.symbol = %(symbol)s AND (back.close IS NULL OR abs(back.close / kept.close - 1) > 1e-6)
