-- The steps of some runs, unordered; of a symbol's tries the latest counts. All tries are counted, and those
-- that were tried again are taken off: they are few, and looking each up is cheaper than sorting all tries
-- by symbol.
SELECT
    dag_id, run_id, step, started_at,
    CASE WHEN running = coalesce(earlier_running, 0) THEN finished_at END,
    ok - coalesce(earlier_ok, 0),
    failed - coalesce(earlier_failed, 0),
    running - coalesce(earlier_running, 0),
    rows_written - coalesce(earlier_rows_written, 0)
FROM unnest(%(dag_ids)s::text[], %(run_ids)s::text[]) AS asked (dag_id, run_id)
CROSS JOIN LATERAL (
    SELECT
        step, min(started_at) AS started_at, max(finished_at) AS finished_at, max(try) AS most,
        count(*) FILTER (WHERE status = 'ok') AS ok,
        count(*) FILTER (WHERE status NOT IN ('ok', 'running')) AS failed,
        count(*) FILTER (WHERE status = 'running') AS running,
        coalesce(sum(rows_written), 0) AS rows_written
    FROM processing_history AS tries
    WHERE tries.dag_id = asked.dag_id AND tries.run_id = asked.run_id
    GROUP BY step
) AS steps
LEFT JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE earlier.status = 'ok') AS earlier_ok,
        count(*) FILTER (WHERE earlier.status NOT IN ('ok', 'running')) AS earlier_failed,
        count(*) FILTER (WHERE earlier.status = 'running') AS earlier_running,
        sum(earlier.rows_written) AS earlier_rows_written
    FROM processing_history AS again
    CROSS JOIN LATERAL (
        SELECT status, rows_written FROM processing_history AS tries
        WHERE tries.dag_id = asked.dag_id AND tries.run_id = asked.run_id
            AND tries.step = again.step AND tries.symbol = again.symbol AND tries.try < again.try
        ORDER BY try DESC LIMIT 1
    ) AS earlier
    WHERE steps.most > 1 AND again.dag_id = asked.dag_id AND again.run_id = asked.run_id
        AND again.step = steps.step AND again.try > 1
) AS earlier ON true
