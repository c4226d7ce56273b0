-- Move a symbol's rows from before an instant out of a table.
WITH taken AS (
    DELETE FROM {table} WHERE symbol = %(symbol)s AND timestamp < %(before)s RETURNING *
)
INSERT INTO {staged} SELECT * FROM taken
