-- Final bars in [start, end), and up to so many before and after it, in time order.
(
    SELECT timestamp, open, high, low, close, volume FROM market_data
    WHERE symbol = %(symbol)s AND is_final AND timestamp < %(start)s
    ORDER BY timestamp DESC LIMIT %(before)s
)
UNION ALL
(
    SELECT timestamp, open, high, low, close, volume FROM market_data
    WHERE symbol = %(symbol)s AND is_final AND timestamp >= %(start)s AND timestamp < %(end)s
)
UNION ALL
(
    SELECT timestamp, open, high, low, close, volume FROM market_data
    WHERE symbol = %(symbol)s AND is_final AND timestamp >= %(end)s
    ORDER BY timestamp LIMIT %(after)s
)
ORDER BY timestamp
