-- The newest runs of each asked DAG, by tick: so many, and all since an instant, `most` in any case. Of two
-- runs with one tick (somebody triggered a run for the very instant of a tick) the one that started last; and when its latest try began.
WITH RECURSIVE ticks AS (
    SELECT asked.dag_id, 1 AS number, (
        SELECT max(window_end) FROM processing_history WHERE processing_history.dag_id = asked.dag_id
    ) AS tick
    FROM unnest(%(dag_ids)s::text[]) AS asked (dag_id)
    UNION ALL
    -- From tick to tick by one probe of the index, instead of a walk through the rows of all symbols.
    SELECT ticks.dag_id, ticks.number + 1, (
        SELECT max(window_end) FROM processing_history
        WHERE processing_history.dag_id = ticks.dag_id AND window_end < ticks.tick
    )
    FROM ticks
    WHERE ticks.tick IS NOT NULL AND (ticks.number < %(runs)s OR ticks.tick > %(since)s)
        AND ticks.number < %(most)s
)
SELECT ticks.dag_id, newest.run_id, ticks.tick, newest.started_at
FROM ticks
CROSS JOIN LATERAL (
    SELECT run_id, started_at FROM processing_history
    WHERE processing_history.dag_id = ticks.dag_id AND window_end = ticks.tick
    ORDER BY started_at DESC LIMIT 1
) AS newest
ORDER BY ticks.dag_id, ticks.tick DESC
