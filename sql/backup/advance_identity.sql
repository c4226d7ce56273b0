-- The next row gets a number after the largest.
SELECT setval(pg_get_serial_sequence(%(table)s, %(column)s), max({column})) FROM {table}
HAVING max({column}) IS NOT NULL
