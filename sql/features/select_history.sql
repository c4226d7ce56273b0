-- As select_bars.sql, for a symbol of which bars were archived: the view costs what the others need not pay.
SELECT array_agg(timestamp), array_agg(ARRAY[open, high, low, close, volume::float8])
FROM (
    SELECT timestamp, open, high, low, close, volume
    FROM feature_history
    WHERE symbol = %(symbol)s AND timestamp >= coalesce(
        (
            SELECT timestamp FROM feature_history
            WHERE symbol = %(symbol)s AND timestamp < %(stale_from)s
            ORDER BY timestamp DESC OFFSET %(lookback)s - 1 LIMIT 1
        ),
        '-infinity'
    )
    ORDER BY timestamp
) AS bars
