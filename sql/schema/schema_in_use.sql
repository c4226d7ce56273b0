-- Where the program's tables stand, or would be made.
SELECT coalesce(
    (SELECT nspname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
     WHERE pg_class.oid = to_regclass('schema_migrations')),
    current_schema()
)
