-- An answer ends the count of denials, and after the pause that of pauses in a row.
UPDATE request_clock SET
    denials = 0,
    refusals = CASE WHEN not_before <= clock_timestamp() THEN 0 ELSE refusals END
WHERE vendor = %(vendor)s AND (denials > 0 OR refusals > 0 AND not_before <= clock_timestamp())
