-- Open alerts of some kinds (null: of all), the oldest first.
SELECT details, key, kind, dag_id, run_id, opened_at, sent_at, due_at
FROM alerts
WHERE resolved_at IS NULL AND (%(kinds)s::text[] IS NULL OR kind = ANY (%(kinds)s))
ORDER BY id
