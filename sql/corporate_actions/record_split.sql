-- A split, and since when the stored bars stand on its basis; its first restatement stays on record.
INSERT INTO corporate_actions AS known
    (symbol, ex_date, kind, value, applied, restated_at, bars_restated, evidence, correlation_id)
VALUES (
    %(symbol)s, %(ex_date)s, 'split', %(ratio)s, %(divide)s,
    CASE WHEN %(decided)s THEN clock_timestamp() END, %(bars)s, %(evidence)s, %(correlation_id)s
)
ON CONFLICT (symbol, ex_date, kind) DO UPDATE SET
    value = EXCLUDED.value,
    applied = known.applied * %(divide)s,
    restated_at = CASE
        WHEN NOT %(decided)s THEN NULL
        WHEN EXCLUDED.bars_restated > 0 THEN EXCLUDED.restated_at
        ELSE coalesce(known.restated_at, EXCLUDED.restated_at)
    END,
    bars_restated = coalesce(known.bars_restated, 0) + EXCLUDED.bars_restated,
    evidence = EXCLUDED.evidence,
    correlation_id = coalesce(known.correlation_id, EXCLUDED.correlation_id)
WHERE known.restated_at IS NULL = %(decided)s OR EXCLUDED.bars_restated > 0 OR %(divide)s <> 1
    OR (known.value, known.evidence) IS DISTINCT FROM (EXCLUDED.value, EXCLUDED.evidence)
