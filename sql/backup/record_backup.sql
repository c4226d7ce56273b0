INSERT INTO backup_history (started_at, finished_at, file, bytes, rows, verified_at, error)
VALUES (
    %(started_at)s, clock_timestamp(), %(file)s, %(bytes)s, %(rows)s,
    CASE WHEN %(error)s::text IS NULL THEN clock_timestamp() END, %(error)s
)
