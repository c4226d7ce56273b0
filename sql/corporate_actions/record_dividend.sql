-- A dividend as the vendor tells it now; what it was before is kept. Every part sees the table as it was.
WITH changed AS (
    INSERT INTO corporate_action_history
        (symbol, ex_date, kind, value, first_seen, restated_at, applied, evidence, correlation_id)
    SELECT symbol, ex_date, kind, value, first_seen, restated_at, applied, evidence, %(correlation_id)s
    FROM corporate_actions
    WHERE symbol = %(symbol)s AND ex_date = %(ex_date)s AND kind = %(kind)s
        AND abs(value - %(amount)s) > 1e-6 * value
)
INSERT INTO corporate_actions AS known (symbol, ex_date, kind, value)
VALUES (%(symbol)s, %(ex_date)s, %(kind)s, %(amount)s)
ON CONFLICT (symbol, ex_date, kind) DO UPDATE SET value = EXCLUDED.value
WHERE abs(known.value - EXCLUDED.value) > 1e-6 * known.value
