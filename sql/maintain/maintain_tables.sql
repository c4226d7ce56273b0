-- The tables: bytes with and without indexes, rows about, dead ones, what the last maintain found, and whether
-- this role may vacuum them.
SELECT
    tables.relname, pg_total_relation_size(relid), pg_table_size(relid), n_live_tup, n_dead_tup,
    last.measured_at, last.bytes, last.rows, pg_has_role(relowner, 'USAGE')
FROM pg_stat_user_tables AS tables
JOIN pg_class ON pg_class.oid = relid
LEFT JOIN LATERAL (
    SELECT measured_at, bytes, rows FROM table_sizes WHERE name = tables.relname
    ORDER BY measured_at DESC LIMIT 1
) AS last ON true
WHERE schemaname = current_schema()
ORDER BY 2 DESC, 1
