-- The latest try of each symbol in one step of a run; a symbol without a row was never attempted.
SELECT DISTINCT ON (symbol) symbol, status, rows_written, error
FROM processing_history
WHERE dag_id = %(dag_id)s AND run_id = %(run_id)s AND step = %(step)s AND symbol = ANY (%(symbols)s)
ORDER BY symbol, try DESC
