-- One symbol's bars in one statement: a final bar never goes back to provisional, equal bars are not
-- rewritten, what a final bar was before a change is kept, and the features from the first changed final
-- bar on become stale. Every part sees the table as it was before.
-- Prices within 1e-6 of each other are the same: the vendor's are single precision. At the same prices a
-- volume that was known does not become 0: the vendor sends the first bar of a range without its volume.
WITH incoming AS (
    SELECT *
    FROM unnest(
        %(timestamp)s::timestamptz[], %(open)s::float8[], %(high)s::float8[], %(low)s::float8[],
        %(close)s::float8[], %(volume)s::bigint[], %(is_final)s::boolean[]
    ) AS bar (timestamp, open, high, low, close, volume, is_final)
),
priced AS (
    SELECT
        incoming.*,
        stored.timestamp IS NULL AS is_new,
        stored.is_final AS was_final,
        stored.volume AS known_volume,
        abs(stored.open - incoming.open) > 1e-6 * stored.open
            OR abs(stored.high - incoming.high) > 1e-6 * stored.high
            OR abs(stored.low - incoming.low) > 1e-6 * stored.low
            OR abs(stored.close - incoming.close) > 1e-6 * stored.close AS other_prices
    FROM incoming
    LEFT JOIN market_data AS stored
        ON stored.symbol = %(symbol)s AND stored.timestamp = incoming.timestamp
),
compared AS (
    SELECT
        timestamp, open, high, low, close, is_final, is_new, was_final,
        CASE WHEN volume = 0 AND NOT other_prices THEN known_volume ELSE volume END AS volume,
        other_prices OR (volume <> known_volume AND volume > 0) AS differs
    FROM priced
),
wanted AS (
    SELECT * FROM compared
    WHERE is_new
        OR (is_final AND NOT was_final)
        OR (differs AND (is_final OR NOT was_final))
),
revisions AS (
    INSERT INTO bar_revisions (symbol, timestamp, open, high, low, close, volume, source, correlation_id)
    SELECT
        stored.symbol, stored.timestamp, stored.open, stored.high, stored.low, stored.close, stored.volume,
        stored.source, %(correlation_id)s
    FROM wanted
    JOIN market_data AS stored ON stored.symbol = %(symbol)s AND stored.timestamp = wanted.timestamp
    WHERE wanted.was_final
    RETURNING 1
),
written AS (
    INSERT INTO market_data (symbol, timestamp, open, high, low, close, volume, is_final, source)
    SELECT %(symbol)s, timestamp, open, high, low, close, volume, is_final, %(source)s
    FROM wanted
    ORDER BY timestamp
    ON CONFLICT (symbol, timestamp) DO UPDATE SET
        open = EXCLUDED.open, high = EXCLUDED.high, low = EXCLUDED.low, close = EXCLUDED.close,
        volume = EXCLUDED.volume, is_final = EXCLUDED.is_final, source = EXCLUDED.source,
        updated_at = clock_timestamp()
    RETURNING timestamp, is_final
),
stale AS (
    INSERT INTO symbol_state (symbol, stale_from, last_fetch_at)
    SELECT %(symbol)s, min(timestamp) FILTER (WHERE is_final), clock_timestamp() FROM written
    ON CONFLICT (symbol) DO UPDATE SET
        stale_from = least(symbol_state.stale_from, EXCLUDED.stale_from),
        last_fetch_at = EXCLUDED.last_fetch_at
    RETURNING 1
)
SELECT (SELECT count(*) FROM written) AS written, (SELECT count(*) FROM revisions) AS revised FROM stale
