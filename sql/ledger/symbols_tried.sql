-- Symbols of one step of a run that were served, and that are not: their latest try has failed.
SELECT count(*) FILTER (WHERE status = 'ok'), count(*) FILTER (WHERE status NOT IN ('ok', 'running'))
FROM (
    SELECT DISTINCT ON (symbol) status FROM processing_history
    WHERE dag_id = %(dag_id)s AND run_id = %(run_id)s AND step = %(step)s
    ORDER BY symbol, try DESC
) AS latest
