-- What each symbol took in some runs, by its latest try that is over: seconds, processor seconds, bytes.
SELECT DISTINCT ON (dag_id, step, symbol)
    dag_id, run_id, step, symbol, status, extract(epoch FROM finished_at - started_at)::float8, cpu_seconds,
    peak_memory_bytes
FROM processing_history
JOIN unnest(%(dag_ids)s::text[], %(run_ids)s::text[]) AS asked (dag_id, run_id) USING (dag_id, run_id)
WHERE finished_at IS NOT NULL
ORDER BY dag_id, step, symbol, try DESC
