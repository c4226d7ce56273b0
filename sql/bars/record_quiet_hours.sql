-- Hours without a trade are known for some weeks; what has come as a bar since was traded.
INSERT INTO symbol_state (symbol, quiet_hours)
VALUES (%(symbol)s, %(hours)s)
ON CONFLICT (symbol) DO UPDATE SET quiet_hours = ARRAY(
    SELECT hour FROM (
        SELECT unnest(symbol_state.quiet_hours) UNION SELECT unnest(EXCLUDED.quiet_hours)
    ) AS known (hour)
    WHERE hour >= %(since)s
    AND NOT EXISTS (
        SELECT FROM market_data WHERE market_data.symbol = %(symbol)s AND timestamp = hour AND is_final
    )
    ORDER BY hour
)
