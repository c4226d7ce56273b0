-- Old tries go, but for the last one of each symbol and step: when was it last served, and how?
WITH old AS (
    DELETE FROM processing_history AS tried
    WHERE started_at < clock_timestamp() - make_interval(days => %(days)s)
        AND EXISTS (
            SELECT FROM (
                SELECT DISTINCT ON (symbol, step) dag_id, run_id, step, symbol, try
                FROM processing_history
                ORDER BY symbol, step, started_at DESC, dag_id, run_id, try
            ) AS latest
            WHERE latest.symbol = tried.symbol AND latest.step = tried.step
                AND (latest.dag_id, latest.run_id, latest.try) <> (tried.dag_id, tried.run_id, tried.try)
        )
    RETURNING 1
)
SELECT count(*) FROM old
