-- Open alerts, the worst and then the newest first, and how many there are in all.
SELECT severity, kind, subject, opened_at, dag_id, run_id, count(*) OVER ()
FROM alerts
WHERE resolved_at IS NULL
ORDER BY array_position(ARRAY['critical', 'warning', 'info'], severity), opened_at DESC
LIMIT %(most)s
