-- Final bars without a feature row of the current version, and feature rows without a final bar.
-- Bars from stale_from on are left out: they changed after the features run and wait for the next one.
SELECT symbol, count(*)
FROM (
    SELECT symbol, timestamp FROM market_data WHERE is_final AND symbol = ANY (%(symbols)s)
) AS bars
FULL JOIN (
    SELECT symbol, timestamp FROM feature_engineered_data
    WHERE feature_version = %(feature_version)s AND symbol = ANY (%(symbols)s)
) AS features USING (symbol, timestamp)
LEFT JOIN symbol_state USING (symbol)
WHERE (bars IS NULL OR features IS NULL) AND timestamp < coalesce(symbol_state.stale_from, 'infinity')
GROUP BY symbol ORDER BY symbol
