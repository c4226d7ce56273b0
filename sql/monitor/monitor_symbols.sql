-- Per asked symbol: its newest final bar, how many of its final bars lack up-to-date features (counting ends
-- at a limit: a fresh load lacks them all), and how many of the expected bars it lacks. Nothing is expected
-- before a symbol's first bar; a symbol without any lacks them all. An hour in which nobody traded is none.
SELECT
    asked.symbol, newest.timestamp, stale.bars,
    -- width_bucket: how many of the expected bars come before the first one.
    cardinality(%(expected)s::timestamptz[]) - held.bars
        - coalesce(width_bucket(oldest.timestamp - interval '1 microsecond', %(expected)s::timestamptz[]), 0)
        - quiet.hours
FROM unnest(%(symbols)s::text[]) AS asked (symbol)
LEFT JOIN symbol_state ON symbol_state.symbol = asked.symbol
LEFT JOIN LATERAL (
    SELECT timestamp FROM market_data
    WHERE market_data.symbol = asked.symbol AND is_final
    ORDER BY timestamp DESC LIMIT 1
) AS newest ON true
LEFT JOIN LATERAL (
    SELECT timestamp FROM market_data
    WHERE market_data.symbol = asked.symbol AND is_final
    ORDER BY timestamp LIMIT 1
) AS oldest ON true
CROSS JOIN LATERAL (
    -- Bars that nobody expects are stored too: of a half day's last half hour, of a day that turned out closed.
    SELECT count(*) AS bars FROM market_data
    WHERE market_data.symbol = asked.symbol AND is_final AND timestamp = ANY (%(expected)s::timestamptz[])
) AS held
CROSS JOIN LATERAL (
    SELECT count(*) AS hours FROM unnest(symbol_state.quiet_hours) AS hour
    WHERE hour = ANY (%(expected)s::timestamptz[]) AND hour >= oldest.timestamp
    AND NOT EXISTS (
        SELECT FROM market_data WHERE market_data.symbol = asked.symbol AND timestamp = hour AND is_final
    )
) AS quiet
CROSS JOIN LATERAL (
    SELECT count(*) AS bars FROM (
        SELECT FROM market_data
        WHERE market_data.symbol = asked.symbol AND is_final
        -- Features of another version are all to be computed anew; null = none is.
        AND timestamp >= CASE
            WHEN symbol_state.feature_version IS DISTINCT FROM %(feature_version)s THEN '-infinity'
            ELSE symbol_state.stale_from
        END
        ORDER BY timestamp LIMIT %(count_to)s
    ) AS counted
) AS stale
ORDER BY asked.symbol
