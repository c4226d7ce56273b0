-- What is known of the symbol's splits: by what earlier bars were divided, and whether that is certain.
SELECT ex_date, value, applied, restated_at IS NOT NULL FROM corporate_actions
WHERE symbol = %(symbol)s AND kind = 'split'
ORDER BY ex_date
