-- The newest final bar of each asked symbol, and how many of its final bars lack up-to-date features.
SELECT asked.symbol, newest.timestamp, stale.bars
FROM unnest(%(symbols)s::text[]) AS asked (symbol)
LEFT JOIN symbol_state ON symbol_state.symbol = asked.symbol
LEFT JOIN LATERAL (
    SELECT timestamp FROM market_data
    WHERE market_data.symbol = asked.symbol AND is_final
    ORDER BY timestamp DESC LIMIT 1
) AS newest ON true
CROSS JOIN LATERAL (
    SELECT count(*) AS bars FROM market_data
    WHERE market_data.symbol = asked.symbol AND is_final
    -- Features of another version are all to be computed anew; null = none is.
    AND timestamp >= CASE
        WHEN symbol_state.feature_version IS DISTINCT FROM %(feature_version)s THEN '-infinity'
        ELSE symbol_state.stale_from
    END
) AS stale
ORDER BY asked.symbol
