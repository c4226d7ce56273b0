-- Bars that waited for confirmation and have it now were never refused.
DELETE FROM quarantined_bars
WHERE symbol = %(symbol)s AND timestamp = ANY (%(timestamps)s) AND released_at IS NULL
    AND reason LIKE '%%' || %(waiting)s
