-- So that a symbol's row is there when its transaction ends.
SELECT FROM processing_history
WHERE dag_id = %(dag_id)s AND run_id = %(run_id)s AND step = %(step)s AND symbol = %(symbol)s AND try = %(try)s
FOR UPDATE
