SELECT timestamp, string_agg(DISTINCT reason, '; ' ORDER BY reason) FROM quarantined_bars
WHERE symbol = %(symbol)s AND timestamp >= %(since)s AND released_at IS NULL
GROUP BY timestamp
ORDER BY timestamp
