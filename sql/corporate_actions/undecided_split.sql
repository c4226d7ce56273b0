SELECT ex_date FROM corporate_actions
WHERE symbol = %(symbol)s AND kind = 'split' AND restated_at IS NULL
ORDER BY ex_date DESC LIMIT 1
