-- The bars that a symbol's stale features are computed from, in time order: those from its first stale bar on
-- (full, or of another version: from its first bar on), and `lookback` bars before it. By the state as it is
-- now, so that the caller need not know it yet. One row of two arrays, which travel at a fraction of the cost
-- of as many rows.
WITH stale AS (
    SELECT
        CASE
            WHEN %(full)s OR feature_version IS DISTINCT FROM %(feature_version)s
                THEN coalesce(archived_before, '-infinity')
            WHEN stale_from IS NOT NULL THEN greatest(stale_from, archived_before)
        END AS since
    FROM symbol_state WHERE symbol = %(symbol)s
)

SELECT array_agg(timestamp), array_agg(ARRAY[open, high, low, close, volume::float8])
FROM (
    SELECT timestamp, open, high, low, close, volume
    FROM feature_history
    WHERE symbol = %(symbol)s AND (SELECT since FROM stale) IS NOT NULL AND timestamp >= coalesce(
        (
            SELECT timestamp FROM feature_history
            WHERE symbol = %(symbol)s AND timestamp < (SELECT since FROM stale)
            ORDER BY timestamp DESC OFFSET %(lookback)s - 1 LIMIT 1
        ),
        '-infinity'
    )
    ORDER BY timestamp
) AS bars
