-- Final bars from `lookback` bars before the first stale one, in time order.
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
