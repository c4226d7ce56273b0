-- Columns of the tables and views of the schema in use, in their order: type, whether null, meaning.
SELECT relname, attname, format_type(atttypid, atttypmod), NOT attnotnull, coalesce(col_description(attrelid, attnum), '')
FROM pg_attribute
JOIN pg_class ON pg_class.oid = attrelid
WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'v') AND attnum > 0 AND NOT attisdropped
ORDER BY relname, attnum
