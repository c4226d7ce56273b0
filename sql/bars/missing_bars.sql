-- Per asked symbol and session, the expected bars of which not all are stored as final ones. Nothing is
-- expected before a symbol's first bar; a symbol without any lacks them all. Hours in which nobody traded may
-- be left out.
WITH expected AS (
    SELECT * FROM unnest(%(timestamps)s::timestamptz[], %(days)s::date[]) AS bar (timestamp, day)
),
asked AS (
    SELECT symbol, (
        SELECT min(timestamp) FROM market_data
        WHERE market_data.symbol = name.symbol AND is_final
    ) AS first_bar, coalesce((
        SELECT quiet_hours FROM symbol_state
        WHERE symbol_state.symbol = name.symbol AND NOT %(quiet_too)s
    ), '{}') AS quiet_hours
    FROM unnest(%(symbols)s::text[]) AS name (symbol)
)
SELECT asked.symbol, expected.day, count(stored.timestamp), count(*)
FROM asked
JOIN expected ON expected.timestamp >= coalesce(asked.first_bar, '-infinity')
LEFT JOIN market_data AS stored
    ON stored.symbol = asked.symbol AND stored.timestamp = expected.timestamp AND stored.is_final
WHERE stored.timestamp IS NOT NULL OR expected.timestamp <> ALL (asked.quiet_hours)
GROUP BY asked.symbol, expected.day
HAVING count(stored.timestamp) < count(*)
ORDER BY asked.symbol, expected.day
