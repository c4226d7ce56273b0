INSERT INTO table_sizes (name, bytes, rows)
SELECT * FROM unnest(%(names)s::text[], %(bytes)s::bigint[], %(rows)s::bigint[])
