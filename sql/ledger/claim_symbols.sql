-- Before any work starts, so that even a machine that dies at once leaves a trace.
INSERT INTO processing_history (dag_id, run_id, step, symbol, try, correlation_id, window_end, status)
SELECT %(dag_id)s, %(run_id)s, %(step)s, symbol, %(try)s, %(correlation_id)s, %(window_end)s, 'running'
FROM unnest(%(symbols)s::text[]) AS symbol
ORDER BY symbol
ON CONFLICT (dag_id, run_id, step, symbol, try) DO UPDATE SET
    started_at = clock_timestamp(), finished_at = NULL, status = 'running',
    rows_written = NULL, cpu_seconds = NULL, peak_memory_bytes = NULL, error = NULL
