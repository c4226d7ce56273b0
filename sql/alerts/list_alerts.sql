SELECT id, kind, severity, dag_id, run_id, subject, opened_at, last_seen_at, resolved_at, due_at, sent_at
FROM alerts
WHERE resolved_at IS NULL OR due_at IS NOT NULL OR opened_at > clock_timestamp() - %(since)s
ORDER BY id
