-- Tries that nobody works on any more: still `running` so long after their start, and not tried again since.
SELECT dag_id, run_id, step, symbol, started_at
FROM processing_history AS tried
WHERE status = 'running' AND started_at < clock_timestamp() - %(longest)s::interval
    AND NOT EXISTS (
        SELECT FROM processing_history AS later
        WHERE (later.dag_id, later.run_id, later.step, later.symbol)
            = (tried.dag_id, tried.run_id, tried.step, tried.symbol) AND later.try > tried.try
    )
ORDER BY started_at, symbol
