-- The next alert with a mail to send; nobody else takes it for two minutes. What is over for days and could
-- never be sent is not sent any more.
UPDATE alerts SET claimed_until = clock_timestamp() + interval '2 minutes'
WHERE id = (
    SELECT id FROM alerts
    WHERE (due_at <= clock_timestamp() OR recovery_due_at <= clock_timestamp())
        AND (claimed_until IS NULL OR claimed_until < clock_timestamp())
        AND (resolved_at IS NULL OR resolved_at > clock_timestamp() - interval '3 days')
    ORDER BY id LIMIT 1
    FOR UPDATE SKIP LOCKED
)
RETURNING details, id, kind, severity, subject, opened_at, resolved_at, due_at IS NOT NULL, sent_at
