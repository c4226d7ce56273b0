-- What was last done with a symbol, in the newest runs of some DAGs.
SELECT
    dag_id, run_id, window_end, step, try, status, started_at,
    extract(epoch FROM finished_at - started_at)::float8, cpu_seconds, peak_memory_bytes, rows_written, error
FROM processing_history
JOIN unnest(%(dag_ids)s::text[], %(run_ids)s::text[]) AS asked (dag_id, run_id) USING (dag_id, run_id)
WHERE symbol = %(symbol)s
ORDER BY started_at DESC, try DESC
