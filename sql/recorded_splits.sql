-- The splits on whose basis the stored bars stand.
SELECT ex_date, value FROM corporate_actions
WHERE symbol = %(symbol)s AND kind = 'split' AND restated_at IS NOT NULL
ORDER BY ex_date
