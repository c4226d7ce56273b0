-- Refused bars, newest first; `stored`: the table has a final bar for that hour all the same.
SELECT
    refused.symbol, refused.timestamp, refused.reason, left(refused.payload_hash, 8) AS id, refused.payload,
    refused.first_seen, refused.last_seen, refused.released_at,
    EXISTS (
        SELECT FROM market_data AS bar
        WHERE bar.symbol = refused.symbol AND bar.timestamp = refused.timestamp AND bar.is_final
    ) AS stored
FROM quarantined_bars AS refused
WHERE (%(symbols)s::text[] IS NULL OR symbol = ANY (%(symbols)s))
    AND (%(timestamp)s::timestamptz IS NULL OR timestamp = %(timestamp)s)
    AND (%(all)s OR released_at IS NULL)
ORDER BY timestamp DESC, symbol, reason, id
