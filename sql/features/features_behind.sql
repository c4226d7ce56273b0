-- Per asked symbol, its final bars without up-to-date features: how many, and the newest. Only those that
-- start by an instant and have been stored for some time, so that a load that is going on is no reason.
SELECT asked.symbol, count(*), max(bars.timestamp)
FROM unnest(%(symbols)s::text[]) AS asked (symbol)
JOIN symbol_state ON symbol_state.symbol = asked.symbol
JOIN market_data AS bars ON bars.symbol = asked.symbol AND bars.is_final
    AND bars.timestamp >= CASE
        WHEN symbol_state.feature_version IS DISTINCT FROM %(feature_version)s THEN '-infinity'
        ELSE symbol_state.stale_from
    END
    AND bars.timestamp <= %(expected)s AND bars.updated_at <= %(stored_before)s
GROUP BY asked.symbol
ORDER BY asked.symbol
