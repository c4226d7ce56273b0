-- What was mailed gets a mail that it is over; what waits for its mail keeps waiting, and will say so itself.
UPDATE alerts SET
    resolved_at = clock_timestamp(),
    recovery_due_at = CASE WHEN sent_at IS NOT NULL AND NOT %(quietly)s THEN clock_timestamp() END,
    due_at = CASE WHEN sent_at IS NULL THEN due_at END
WHERE key = ANY (%(keys)s) AND resolved_at IS NULL
RETURNING key
