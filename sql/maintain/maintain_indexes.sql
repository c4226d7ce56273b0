-- The indexes: bytes, scans since the statistics began, and whether a key needs them however seldom they are used.
SELECT relname, indexrelname, pg_relation_size(indexrelid), idx_scan, indisunique
FROM pg_stat_user_indexes AS used
JOIN pg_index USING (indexrelid)
WHERE schemaname = current_schema()
ORDER BY 3 DESC, 2
