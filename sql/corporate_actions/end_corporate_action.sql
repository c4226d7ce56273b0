-- The vendor has withdrawn it.
WITH ended AS (
    DELETE FROM corporate_actions
    WHERE symbol = %(symbol)s AND ex_date = %(ex_date)s AND kind = %(kind)s
    RETURNING *
)
INSERT INTO corporate_action_history
    (symbol, ex_date, kind, value, first_seen, restated_at, applied, evidence, correlation_id)
SELECT symbol, ex_date, kind, value, first_seen, restated_at, applied, evidence, %(correlation_id)s FROM ended
