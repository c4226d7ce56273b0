UPDATE quarantined_bars SET released_at = clock_timestamp()
WHERE symbol = %(symbol)s AND timestamp = %(timestamp)s AND payload_hash = %(payload_hash)s
