-- The refused bars of one hour, and whether a split has moved the table to another basis since.
SELECT
    refused.payload_hash, refused.payload, refused.reason, refused.released_at,
    EXISTS (
        SELECT FROM restatements AS restated
        WHERE restated.symbol = refused.symbol AND restated.restated_at > refused.first_seen
            AND restated.ex_date > (refused.timestamp AT TIME ZONE 'America/New_York')::date
    ) AS outdated
FROM quarantined_bars AS refused
WHERE refused.symbol = %(symbol)s AND refused.timestamp = %(timestamp)s
    AND refused.payload_hash LIKE %(id)s || '%%'
ORDER BY refused.first_seen
FOR UPDATE
