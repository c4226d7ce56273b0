-- The tables with their bytes, indexes included, and about how many rows they hold; the largest first.
SELECT relname, pg_total_relation_size(relid), n_live_tup
FROM pg_stat_user_tables
WHERE schemaname = current_schema()
ORDER BY 2 DESC, 1
