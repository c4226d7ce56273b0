-- The same refused bar counts once, however often it is fetched.
INSERT INTO quarantined_bars (symbol, timestamp, reason, payload_hash, payload, correlation_id)
VALUES (%(symbol)s, %(timestamp)s, %(reason)s, md5(%(payload)s), %(payload)s::jsonb, %(correlation_id)s)
ON CONFLICT (symbol, timestamp, reason, payload_hash) DO UPDATE SET last_seen = clock_timestamp()
