UPDATE alerts SET
    sent_at = clock_timestamp(), due_at = NULL, recovery_due_at = NULL, claimed_until = NULL
WHERE id = %(id)s
