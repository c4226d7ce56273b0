-- The run with the latest tick of each asked DAG, step by step; of a symbol's tries the latest counts.
WITH last_run AS (
    SELECT newest.*
    FROM unnest(%(dag_ids)s::text[]) AS asked (dag_id)
    CROSS JOIN LATERAL (
        SELECT dag_id, run_id, window_end
        FROM processing_history
        WHERE processing_history.dag_id = asked.dag_id
        ORDER BY window_end DESC, started_at DESC
        LIMIT 1
    ) AS newest
),
tries AS (
    SELECT
        last_run.dag_id, last_run.run_id, last_run.window_end, step, status, rows_written, finished_at,
        min(started_at) OVER (PARTITION BY last_run.dag_id, step) AS began_at,
        row_number() OVER (PARTITION BY last_run.dag_id, step, symbol ORDER BY try DESC) AS from_latest
    FROM processing_history
    JOIN last_run USING (dag_id, run_id)
)
SELECT
    dag_id, run_id, window_end, step, began_at,
    CASE WHEN bool_and(status <> 'running') THEN max(finished_at) END,
    count(*) FILTER (WHERE status = 'ok'),
    count(*) FILTER (WHERE status NOT IN ('ok', 'running')),
    count(*) FILTER (WHERE status = 'running'),
    coalesce(sum(rows_written), 0)::bigint
FROM tries
WHERE from_latest = 1
GROUP BY dag_id, run_id, window_end, step, began_at
ORDER BY dag_id, began_at, step
