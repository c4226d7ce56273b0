-- Who sends next tries again: after the pause, and all that is due now waits for it.
UPDATE alerts SET claimed_until = clock_timestamp() + %(pause)s
WHERE id = %(id)s OR (
    (due_at IS NOT NULL OR recovery_due_at IS NOT NULL)
    AND (claimed_until IS NULL OR claimed_until < clock_timestamp())
)
