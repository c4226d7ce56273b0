-- Every row of the runs that carry this correlation id or run id, in order.
SELECT
    dag_id, run_id, correlation_id, window_end, step, symbol, try, status, started_at, finished_at,
    rows_written, cpu_seconds, peak_memory_bytes, error
FROM processing_history
WHERE correlation_id = %(id)s OR run_id = %(id)s
ORDER BY dag_id, run_id, started_at, symbol, try
