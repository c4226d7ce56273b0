-- An open alert is seen again: mailed once it is confirmed, and again, where its kind reminds, after the
-- quiet period of its condition: whenever it is seen, or by another run. (Its own sent_at counts for itself:
-- who has just sent the mail may have committed after this statement's snapshot was taken, which only the
-- updated row sees.)
UPDATE alerts SET
    last_seen_at = clock_timestamp(), subject = %(subject)s, details = %(details)s,
    run_id = coalesce(%(run_id)s, run_id),
    due_at = CASE
        WHEN NOT %(told)s
            AND (
                alerts.sent_at IS NULL
                OR (
                    (%(reminds)s OR (%(by_run)s AND alerts.run_id <> %(run_id)s))
                    AND alerts.sent_at + %(quiet)s <= clock_timestamp()
                )
            )
            AND opened_at + %(confirm)s <= clock_timestamp()
            AND NOT EXISTS (
                SELECT FROM alerts AS told
                WHERE told.condition = %(condition)s AND told.sent_at + %(quiet)s > clock_timestamp()
            )
        THEN coalesce(due_at, clock_timestamp())
        ELSE due_at
    END
WHERE key = %(key)s AND resolved_at IS NULL
RETURNING id
