SELECT symbol, ex_date, value, coalesce(bars_restated, 0) FROM corporate_actions
WHERE kind = 'split' AND correlation_id = %(correlation_id)s AND symbol = ANY (%(symbols)s)
    AND bars_restated > 0
ORDER BY symbol, ex_date
