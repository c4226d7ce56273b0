-- Bars that came right, or waited for confirmation and have it now, are nobody's business any more. What
-- somebody released stays.
DELETE FROM quarantined_bars
WHERE symbol = %(symbol)s AND timestamp = ANY (%(timestamps)s) AND released_at IS NULL
