-- The steps of some runs, in the order in which they began; of a symbol's tries the latest counts.
SELECT dag_id, run_id, steps.*
FROM unnest(%(dag_ids)s::text[], %(run_ids)s::text[]) AS asked (dag_id, run_id)
CROSS JOIN LATERAL (
    SELECT
        step,
        min(started_at) AS began_at,
        CASE WHEN bool_and(status <> 'running') FILTER (WHERE latest) THEN max(finished_at) END,
        count(*) FILTER (WHERE latest AND status = 'ok'),
        count(*) FILTER (WHERE latest AND status NOT IN ('ok', 'running')),
        count(*) FILTER (WHERE latest AND status = 'running'),
        coalesce(sum(rows_written) FILTER (WHERE latest), 0)::bigint
    FROM (
        SELECT
            step, started_at, finished_at, status, rows_written,
            -- In the order of the primary key: nothing is sorted.
            lead(try) OVER (PARTITION BY step, symbol ORDER BY try) IS NULL AS latest
        FROM processing_history
        WHERE processing_history.dag_id = asked.dag_id AND processing_history.run_id = asked.run_id
    ) AS tries
    GROUP BY step
) AS steps
ORDER BY dag_id, run_id, steps.began_at, steps.step
