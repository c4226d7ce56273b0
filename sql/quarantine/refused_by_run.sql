-- How many bars a run was the first to refuse, per symbol.
SELECT symbol, count(*) FROM quarantined_bars
WHERE correlation_id = %(correlation_id)s AND symbol = ANY (%(symbols)s)
GROUP BY symbol ORDER BY symbol
