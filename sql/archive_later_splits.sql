-- Splits for which the symbol's bars were restated after an archive of them was made, oldest first.
SELECT ex_date, value FROM corporate_actions
WHERE symbol = %(symbol)s AND kind = 'split' AND bars_restated > 0 AND restated_at > %(archived_at)s
ORDER BY ex_date
