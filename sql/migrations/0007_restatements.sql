-- What was done to stored bars for the sake of splits, each time, and what corporate actions were before they
-- changed or ended: from these and bar_revisions the table can be led back to any moment.

CREATE TABLE restatements (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    symbol          text COLLATE "C"  NOT NULL,
    ex_date         date              NOT NULL,
    ratio           double precision  NOT NULL CHECK (ratio > 0 AND ratio < 'Infinity'),
    bars            integer           NOT NULL CHECK (bars >= 0),
    reason          text              NOT NULL,
    restated_at     timestamptz       NOT NULL DEFAULT clock_timestamp(),
    correlation_id  text
);
CREATE INDEX restatements_symbol ON restatements (symbol, id);
COMMENT ON TABLE restatements IS
    'each time that all stored bars before ex_date (New York) and dividends were brought to another split basis';
COMMENT ON COLUMN restatements.ratio IS 'prices and dividends were divided by it, volumes multiplied';
COMMENT ON COLUMN restatements.reason IS
    'event = the vendor announced the split; ratio = only its prices showed it; taken back = there was none';

INSERT INTO restatements (symbol, ex_date, ratio, bars, reason, restated_at, correlation_id)
SELECT symbol, ex_date, value, bars_restated, coalesce(evidence, 'event'), restated_at, correlation_id
FROM corporate_actions
WHERE kind = 'split' AND bars_restated > 0 AND restated_at IS NOT NULL
ORDER BY restated_at;

ALTER TABLE corporate_actions
    ADD COLUMN applied double precision NOT NULL DEFAULT 1 CHECK (applied > 0 AND applied < 'Infinity');
UPDATE corporate_actions SET applied = value WHERE kind = 'split' AND bars_restated > 0;
COMMENT ON COLUMN corporate_actions.applied IS
    'splits: by what the stored bars before ex_date were divided in all; 1 = they came on that basis';
COMMENT ON COLUMN corporate_actions.restated_at IS
    'splits: since when all stored bars stand on the new basis; null = it cannot be told yet';

CREATE TABLE corporate_action_history (
    symbol          text COLLATE "C"  NOT NULL,
    ex_date         date              NOT NULL,
    kind            text              NOT NULL,
    value           double precision  NOT NULL,
    first_seen      timestamptz       NOT NULL,
    restated_at     timestamptz,
    applied         double precision  NOT NULL,
    evidence        text,
    ended_at        timestamptz       NOT NULL DEFAULT clock_timestamp(),
    correlation_id  text,
    PRIMARY KEY (symbol, ex_date, kind, ended_at)
);
COMMENT ON TABLE corporate_action_history IS
    'what corporate_actions held until ended_at: the vendor has withdrawn it, moved it or told another value';
