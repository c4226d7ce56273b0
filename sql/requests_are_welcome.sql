-- A good answer ends the count of pauses in a row.
UPDATE request_clock SET refusals = 0
WHERE vendor = %(vendor)s AND refusals > 0 AND not_before <= clock_timestamp()
