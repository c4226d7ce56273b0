-- What is stored of each symbol, or of those asked for: oldest bar, newest final bar, state.
SELECT symbol, oldest.timestamp, newest.timestamp, stale_from, feature_version, archived_before
FROM symbol_state
LEFT JOIN LATERAL (
    SELECT timestamp FROM market_data
    WHERE market_data.symbol = symbol_state.symbol ORDER BY timestamp LIMIT 1
) AS oldest ON true
LEFT JOIN LATERAL (
    SELECT timestamp FROM market_data
    WHERE market_data.symbol = symbol_state.symbol AND is_final ORDER BY timestamp DESC LIMIT 1
) AS newest ON true
WHERE %(symbols)s::text[] IS NULL OR symbol = ANY (%(symbols)s)
ORDER BY symbol
