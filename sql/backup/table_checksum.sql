-- The rows of a table and a sum over them that does not depend on their order.
SELECT count(*), coalesce(sum(hashtextextended(stored::text, 0)), 0) FROM {table} AS stored
