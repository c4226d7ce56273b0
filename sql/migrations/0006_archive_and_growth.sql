-- Bars that were archived leave behind what the features of later bars need; and how the tables grow.

ALTER TABLE symbol_state ADD COLUMN archived_before timestamptz;
COMMENT ON COLUMN symbol_state.archived_before IS
    'bars before it were archived, and nobody collects them again; null = none were';

CREATE TABLE lookback_bars (
    symbol     text COLLATE "C"  NOT NULL,
    timestamp  timestamptz       NOT NULL,
    open       double precision  NOT NULL,
    high       double precision  NOT NULL,
    low        double precision  NOT NULL,
    close      double precision  NOT NULL,
    volume     bigint            NOT NULL,
    PRIMARY KEY (symbol, timestamp)
);
COMMENT ON TABLE lookback_bars IS
    'the last final bars before archived_before, to which the features of the bars after it look back';

CREATE VIEW feature_history AS
SELECT symbol, timestamp, open, high, low, close, volume FROM market_data WHERE is_final
UNION ALL
SELECT symbol, timestamp, open, high, low, close, volume FROM lookback_bars;
COMMENT ON VIEW feature_history IS 'the bars that features are computed from';

CREATE TABLE table_sizes (
    name         text         NOT NULL,
    measured_at  timestamptz  NOT NULL DEFAULT clock_timestamp(),
    bytes        bigint       NOT NULL,
    rows         bigint       NOT NULL,
    PRIMARY KEY (name, measured_at)
);
COMMENT ON TABLE table_sizes IS 'what each `maintain` found: bytes with indexes, rows about';
