-- Something that is over and could not be recorded while it lasted.
INSERT INTO alerts (
    key, condition, kind, severity, dag_id, run_id, subject, details,
    opened_at, resolved_at, due_at, sent_at, recovery_due_at
)
SELECT
    %(key)s, %(condition)s, %(kind)s, %(severity)s, %(dag_id)s, %(run_id)s, %(subject)s, %(details)s,
    %(opened_at)s, clock_timestamp(),
    CASE WHEN %(sent_at)s::timestamptz IS NULL THEN clock_timestamp() END, %(sent_at)s,
    CASE WHEN %(sent_at)s::timestamptz IS NOT NULL THEN clock_timestamp() END
