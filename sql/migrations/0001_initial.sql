-- Bars, features and the record of how they came about. All times are timestamptz, stored in UTC.

CREATE TABLE market_data (
    symbol      text COLLATE "C"  NOT NULL CHECK (symbol ~ '^[A-Z][A-Z0-9]{0,9}(-[A-Z]{1,2})?$'),
    timestamp   timestamptz       NOT NULL,
    open        double precision  NOT NULL,
    high        double precision  NOT NULL,
    low         double precision  NOT NULL,
    close       double precision  NOT NULL,
    volume      bigint            NOT NULL CHECK (volume >= 0),
    is_final    boolean           NOT NULL,
    source      text              NOT NULL CHECK (source <> ''),
    created_at  timestamptz       NOT NULL DEFAULT clock_timestamp(),
    updated_at  timestamptz       NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (symbol, timestamp),
    -- NaN counts as larger than Infinity, so the upper bound refuses both.
    CHECK (open  > 0 AND open  < 'Infinity'),
    CHECK (high  > 0 AND high  < 'Infinity'),
    CHECK (low   > 0 AND low   < 'Infinity'),
    CHECK (close > 0 AND close < 'Infinity'),
    CHECK (low <= least(open, close)),
    CHECK (high >= greatest(open, close))
);
COMMENT ON COLUMN market_data.timestamp IS 'start of the bar';
COMMENT ON COLUMN market_data.is_final IS 'the bar had ended when a run wrote it; never goes back to false';
COMMENT ON COLUMN market_data.source IS 'yahoo or simulated; one database holds only one of them';

-- The newest bar of all, and ranges of time over all symbols.
CREATE INDEX market_data_timestamp ON market_data (timestamp);

CREATE TABLE feature_engineered_data (
    symbol                text COLLATE "C"  NOT NULL,
    timestamp             timestamptz       NOT NULL,
    returns               double precision,
    log_returns           double precision,
    high_low_pct          double precision,
    open_close_pct        double precision,
    price_acceleration    double precision,
    returns_sign          double precision,
    sma_short             double precision,
    sma_med               double precision,
    sma_long              double precision,
    price_to_sma_short    double precision,
    price_to_sma_med      double precision,
    price_to_sma_long     double precision,
    sma_short_to_med      double precision,
    sma_med_to_long       double precision,
    realized_vol_short    double precision,
    realized_vol_med      double precision,
    realized_vol_long     double precision,
    gk_volatility         double precision,
    vol_of_vol            double precision,
    bb_upper              double precision,
    bb_lower              double precision,
    bb_position           double precision,
    bb_squeeze            double precision,
    macd                  double precision,
    macd_signal           double precision,
    macd_histogram        double precision,
    macd_normalized       double precision,
    atr                   double precision,
    atr_normalized        double precision,
    williams_r            double precision,
    rsi                   double precision,
    stoch_k               double precision,
    stoch_d               double precision,
    adx                   double precision,
    cci                   double precision,
    mfi                   double precision,
    feature_version       text              NOT NULL,
    created_at            timestamptz       NOT NULL DEFAULT clock_timestamp(),
    updated_at            timestamptz       NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (symbol, timestamp)
);

-- "How many features are recent?"
CREATE INDEX feature_engineered_data_created_at ON feature_engineered_data (created_at);

CREATE TABLE symbol_state (
    symbol           text COLLATE "C" PRIMARY KEY,
    stale_from       timestamptz,
    feature_version  text,
    last_fetch_at    timestamptz
);
COMMENT ON COLUMN symbol_state.stale_from IS
    'features of this bar and all later ones must be computed anew; null = features are up to date';

CREATE TABLE bar_revisions (
    symbol          text COLLATE "C"  NOT NULL,
    timestamp       timestamptz       NOT NULL,
    seen_at         timestamptz       NOT NULL DEFAULT clock_timestamp(),
    open            double precision  NOT NULL,
    high            double precision  NOT NULL,
    low             double precision  NOT NULL,
    close           double precision  NOT NULL,
    volume          bigint            NOT NULL,
    source          text              NOT NULL,
    correlation_id  text              NOT NULL,
    PRIMARY KEY (symbol, timestamp, seen_at)
);
COMMENT ON TABLE bar_revisions IS 'what a final bar was before the vendor changed it, and when that was seen';

CREATE TABLE quarantined_bars (
    symbol          text COLLATE "C"  NOT NULL,
    timestamp       timestamptz       NOT NULL,
    reason          text              NOT NULL,
    payload_hash    text              NOT NULL,
    payload         jsonb             NOT NULL,
    first_seen      timestamptz       NOT NULL DEFAULT clock_timestamp(),
    last_seen       timestamptz       NOT NULL DEFAULT clock_timestamp(),
    correlation_id  text              NOT NULL,
    PRIMARY KEY (symbol, timestamp, reason, payload_hash)
);
COMMENT ON TABLE quarantined_bars IS 'bars that were refused, and why';

CREATE TABLE corporate_actions (
    symbol       text COLLATE "C"  NOT NULL,
    ex_date      date              NOT NULL,
    kind         text              NOT NULL CHECK (kind IN ('split', 'dividend')),
    value        double precision  NOT NULL CHECK (value > 0),
    first_seen   timestamptz       NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (symbol, ex_date, kind)
);
COMMENT ON COLUMN corporate_actions.value IS
    'split: new shares for one old share; dividend: US dollars a share (bars are not dividend-adjusted)';

CREATE TABLE processing_history (
    dag_id             text              NOT NULL,
    run_id             text              NOT NULL,
    step               text              NOT NULL,
    symbol             text COLLATE "C"  NOT NULL,
    try                integer           NOT NULL,
    correlation_id     text              NOT NULL,
    window_end         timestamptz       NOT NULL,
    started_at         timestamptz       NOT NULL DEFAULT clock_timestamp(),
    finished_at        timestamptz,
    status             text              NOT NULL CHECK (status IN
        ('running', 'ok', 'error', 'timeout', 'out_of_memory', 'crashed', 'cancelled')),
    rows_written       integer,
    cpu_seconds        double precision,
    peak_memory_bytes  bigint,
    error              text,
    PRIMARY KEY (dag_id, run_id, step, symbol, try),
    CHECK ((status = 'running') = (finished_at IS NULL))
);
COMMENT ON TABLE processing_history IS 'the audit log: one row for each run, step, symbol and try';
COMMENT ON COLUMN processing_history.window_end IS
    'the instant up to which the run works: its tick, or when it was triggered';
-- The story of a run, by either of its names; the last runs of a DAG.
CREATE INDEX processing_history_correlation_id ON processing_history (correlation_id);
CREATE INDEX processing_history_run_id ON processing_history (run_id);
CREATE INDEX processing_history_last_runs ON processing_history (dag_id, window_end, started_at);

-- One row: the moment from which the next request to the vendor may be sent, over all processes and hosts.
CREATE TABLE request_clock (
    vendor     text         PRIMARY KEY,
    next_slot  timestamptz  NOT NULL
);

-- At most one row: which kind of data this database holds.
CREATE TABLE data_source (
    only_row  boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    source    text    NOT NULL
);
