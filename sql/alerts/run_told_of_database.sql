-- Whether a mail about the database has named the run.
SELECT EXISTS (
    SELECT FROM alerts
    WHERE kind IN ('database_unreachable', 'database_refused') AND details -> 'runs' ? %(run_id)s
)
