-- What was done to the symbol's bars for the sake of splits after an archive of them was made, oldest first.
SELECT ex_date, ratio FROM restatements
WHERE symbol = %(symbol)s AND restated_at > %(archived_at)s
ORDER BY id
