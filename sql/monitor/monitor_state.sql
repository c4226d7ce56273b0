-- Which kind of data this database holds (null: none yet), whether bars are stored, whether anything was ever
-- tried, and whether the very first run is at work: no features yet, but somebody was busy lately.
SELECT
    (SELECT source FROM data_source),
    EXISTS (SELECT FROM market_data),
    EXISTS (SELECT FROM processing_history),
    NOT EXISTS (SELECT FROM feature_engineered_data) AND EXISTS (
        SELECT FROM processing_history
        WHERE finished_at > %(now)s::timestamptz - interval '2 minutes'
            OR (status = 'running' AND started_at > %(now)s::timestamptz - interval '1 hour')
    )
