-- Tables and views of the schema in use: meaning, columns of the primary key.
SELECT
    relname,
    coalesce(obj_description(pg_class.oid, 'pg_class'), ''),
    ARRAY(
        SELECT attname::text
        FROM pg_index
        CROSS JOIN LATERAL unnest(indkey) WITH ORDINALITY AS key (number, place)
        JOIN pg_attribute ON attrelid = indrelid AND attnum = number
        WHERE indrelid = pg_class.oid AND indisprimary
        ORDER BY place
    )
FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'v')
