-- Only over a running row: what was committed as ok stays ok, however its process ended.
UPDATE processing_history SET
    status = %(status)s,
    started_at = clock_timestamp() - make_interval(secs => %(seconds)s), finished_at = clock_timestamp(),
    cpu_seconds = %(cpu_seconds)s, peak_memory_bytes = %(peak_memory_bytes)s, error = %(error)s
WHERE dag_id = %(dag_id)s AND run_id = %(run_id)s AND step = %(step)s AND symbol = %(symbol)s AND try = %(try)s
    AND status = 'running'
