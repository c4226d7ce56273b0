-- Of the expected hours, those of which a symbol has no final bar, from its first one on, and whether nobody
-- traded it then, as the vendor says.
SELECT asked.symbol, expected.timestamp, expected.timestamp = ANY (coalesce(symbol_state.quiet_hours, '{}'))
FROM (
    SELECT symbol, (
        SELECT min(timestamp) FROM market_data
        WHERE market_data.symbol = name.symbol AND is_final
    ) AS first_bar
    FROM unnest(%(symbols)s::text[]) AS name (symbol)
) AS asked
LEFT JOIN symbol_state ON symbol_state.symbol = asked.symbol
JOIN unnest(%(timestamps)s::timestamptz[]) AS expected (timestamp) ON expected.timestamp >= asked.first_bar
WHERE NOT EXISTS (
    SELECT FROM market_data
    WHERE market_data.symbol = asked.symbol AND market_data.timestamp = expected.timestamp AND is_final
)
ORDER BY expected.timestamp, asked.symbol
