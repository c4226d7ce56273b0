-- Bars that the vendor changed after they were final: how often, and what they closed at before the last time.
SELECT timestamp, count(*), (array_agg(close ORDER BY seen_at DESC))[1] FROM bar_revisions
WHERE symbol = %(symbol)s AND timestamp >= %(since)s
GROUP BY timestamp
ORDER BY timestamp
