SELECT symbol, ex_date, value FROM corporate_actions
WHERE symbol = ANY (%(symbols)s) AND kind = 'split' AND restated_at IS NULL AND ex_date <= %(since)s
ORDER BY symbol, ex_date
