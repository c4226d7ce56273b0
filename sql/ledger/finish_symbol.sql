-- In the transaction of the data: the data and the word that it is there are committed together.
UPDATE processing_history SET
    status = 'ok', started_at = %(started_at)s, finished_at = clock_timestamp(),
    rows_written = %(rows_written)s, cpu_seconds = %(cpu_seconds)s, peak_memory_bytes = %(peak_memory_bytes)s
WHERE dag_id = %(dag_id)s AND run_id = %(run_id)s AND step = %(step)s AND symbol = %(symbol)s AND try = %(try)s
