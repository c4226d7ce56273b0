-- A split and since when the stored bars stand on its basis; its first restatement stays on record.
INSERT INTO corporate_actions AS known
    (symbol, ex_date, kind, value, restated_at, bars_restated, evidence, correlation_id)
VALUES (
    %(symbol)s, %(ex_date)s, 'split', %(ratio)s, clock_timestamp(), %(bars)s, %(evidence)s, %(correlation_id)s
)
ON CONFLICT (symbol, ex_date, kind) DO UPDATE SET
    value = EXCLUDED.value,
    restated_at = CASE
        WHEN EXCLUDED.bars_restated > 0 THEN EXCLUDED.restated_at
        ELSE coalesce(known.restated_at, EXCLUDED.restated_at)
    END,
    bars_restated = coalesce(known.bars_restated, 0) + EXCLUDED.bars_restated,
    evidence = EXCLUDED.evidence,
    correlation_id = coalesce(known.correlation_id, EXCLUDED.correlation_id)
WHERE known.restated_at IS NULL OR EXCLUDED.bars_restated > 0
    OR (known.value, known.evidence) IS DISTINCT FROM (EXCLUDED.value, EXCLUDED.evidence)
