DELETE FROM request_queue WHERE waiter = %(waiter)s
