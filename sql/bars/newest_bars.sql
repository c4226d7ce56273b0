-- The newest final bar of each asked symbol, and from where on its features are stale; one index probe each.
SELECT asked.symbol, newest.timestamp, symbol_state.stale_from
FROM unnest(%(symbols)s::text[]) AS asked (symbol)
LEFT JOIN LATERAL (
    SELECT timestamp FROM market_data
    WHERE market_data.symbol = asked.symbol AND is_final
    ORDER BY timestamp DESC LIMIT 1
) AS newest ON true
LEFT JOIN symbol_state ON symbol_state.symbol = asked.symbol
ORDER BY asked.symbol
