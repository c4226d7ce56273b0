-- Nothing happens where the same event was told before. Within the quiet period of its condition, or before
-- it is confirmed, an alert is recorded and not yet mailed. An event begins and ends in one instant.
INSERT INTO alerts (
    key, condition, kind, severity, dag_id, run_id, subject, details, opened_at, resolved_at, due_at
)
SELECT
    %(key)s, %(condition)s, %(kind)s, %(severity)s, %(dag_id)s, %(run_id)s, %(subject)s, %(details)s,
    statement_timestamp(), CASE WHEN NOT %(lasting)s THEN statement_timestamp() END,
    CASE
        WHEN NOT %(told)s AND %(confirm)s <= interval '0' AND NOT EXISTS (
            SELECT FROM alerts AS told
            WHERE told.condition = %(condition)s AND told.sent_at + %(quiet)s > clock_timestamp()
        )
        THEN clock_timestamp()
    END
WHERE %(lasting)s OR NOT EXISTS (SELECT FROM alerts WHERE key = %(key)s)
RETURNING id
