-- The end of the last window of a DAG, before one, up to which a symbol was collected; null = never.
SELECT window_end FROM processing_history
WHERE dag_id = %(dag_id)s AND window_end < %(before)s
AND symbol = %(symbol)s AND step = %(step)s AND status = 'ok'
ORDER BY window_end DESC
LIMIT 1
