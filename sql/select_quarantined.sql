-- The refused bars of one hour, and whether a split has moved the table to another basis since.
SELECT
    refused.payload_hash, refused.payload, refused.reason, refused.released_at,
    EXISTS (
        SELECT FROM corporate_actions AS action
        WHERE action.symbol = refused.symbol AND action.kind = 'split'
            AND action.restated_at > refused.first_seen
            AND action.ex_date > (refused.timestamp AT TIME ZONE 'America/New_York')::date
    ) AS outdated
FROM quarantined_bars AS refused
WHERE refused.symbol = %(symbol)s AND refused.timestamp = %(timestamp)s
    AND refused.payload_hash LIKE %(id)s || '%%'
ORDER BY refused.first_seen
FOR UPDATE
