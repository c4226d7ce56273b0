-- Final bars from `lookback` bars before the first stale one, in time order: one row of two arrays, which
-- travel at a fraction of the cost of as many rows.
SELECT array_agg(timestamp), array_agg(ARRAY[open, high, low, close, volume::float8])
FROM (
    SELECT timestamp, open, high, low, close, volume
    FROM market_data
    WHERE symbol = %(symbol)s AND is_final AND timestamp >= coalesce(
        (
            SELECT timestamp FROM market_data
            WHERE symbol = %(symbol)s AND is_final AND timestamp < %(stale_from)s
            ORDER BY timestamp DESC OFFSET %(lookback)s - 1 LIMIT 1
        ),
        '-infinity'
    )
    ORDER BY timestamp
) AS bars
