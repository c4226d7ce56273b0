INSERT INTO corporate_actions (symbol, ex_date, kind, value)
VALUES (%(symbol)s, %(ex_date)s, %(kind)s, %(value)s)
ON CONFLICT (symbol, ex_date, kind) DO UPDATE SET value = EXCLUDED.value
WHERE corporate_actions.value IS DISTINCT FROM EXCLUDED.value
