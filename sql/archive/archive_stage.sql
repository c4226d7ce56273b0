-- A table of this connection alone, empty again at the end of each transaction.
CREATE TEMPORARY TABLE IF NOT EXISTS {staged} (LIKE {table}) ON COMMIT DELETE ROWS
