SELECT symbol, ex_date, ratio, bars, reason FROM restatements
WHERE correlation_id = %(correlation_id)s AND symbol = ANY (%(symbols)s) AND bars > 0
ORDER BY symbol, id
