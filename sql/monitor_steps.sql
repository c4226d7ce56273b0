-- The steps of some runs, unordered; of a symbol's tries the latest counts. All tries are counted, and those
-- that were tried again are taken off: they are few, and looking each up is cheaper than sorting all tries
-- by symbol.
SELECT dag_id, run_id, steps.*
FROM unnest(%(dag_ids)s::text[], %(run_ids)s::text[]) AS asked (dag_id, run_id)
CROSS JOIN LATERAL (
    SELECT
        step,
        min(started_at),
        CASE WHEN coalesce(sum(counts) FILTER (WHERE status = 'running'), 0) = 0 THEN max(finished_at) END,
        coalesce(sum(counts) FILTER (WHERE status = 'ok'), 0),
        coalesce(sum(counts) FILTER (WHERE status NOT IN ('ok', 'running')), 0),
        coalesce(sum(counts) FILTER (WHERE status = 'running'), 0),
        coalesce(sum(rows_written), 0)
    FROM (
        SELECT step, started_at, finished_at, status, rows_written, 1 AS counts
        FROM processing_history AS tries
        WHERE tries.dag_id = asked.dag_id AND tries.run_id = asked.run_id
        UNION ALL
        SELECT again.step, earlier.started_at, earlier.finished_at, earlier.status, -earlier.rows_written, -1
        FROM processing_history AS again
        CROSS JOIN LATERAL (
            SELECT started_at, finished_at, status, rows_written FROM processing_history AS tries
            WHERE tries.dag_id = asked.dag_id AND tries.run_id = asked.run_id
                AND tries.step = again.step AND tries.symbol = again.symbol AND tries.try < again.try
            ORDER BY try DESC LIMIT 1
        ) AS earlier
        WHERE again.dag_id = asked.dag_id AND again.run_id = asked.run_id AND again.try > 1
    ) AS tries
    GROUP BY step
) AS steps
