-- The database's size in bytes, refused bars that nobody released, and those of the last day.
SELECT
    pg_database_size(current_database()),
    (SELECT count(*) FROM quarantined_bars WHERE released_at IS NULL),
    (SELECT count(*) FROM quarantined_bars
     WHERE released_at IS NULL AND first_seen > %(now)s::timestamptz - interval '1 day')
