-- Stored final bars that the bars after them have shown to be untrue: kept as revisions, taken from the
-- table with their features.
WITH retracted AS (
    DELETE FROM market_data WHERE symbol = %(symbol)s AND timestamp = ANY (%(timestamps)s)
    RETURNING *
),
features AS (
    DELETE FROM feature_engineered_data WHERE symbol = %(symbol)s AND timestamp = ANY (%(timestamps)s)
),
revisions AS (
    INSERT INTO bar_revisions (symbol, timestamp, open, high, low, close, volume, source, correlation_id)
    SELECT symbol, timestamp, open, high, low, close, volume, source, %(correlation_id)s
    FROM retracted WHERE is_final
),
stale AS (
    INSERT INTO symbol_state (symbol, stale_from)
    SELECT %(symbol)s, min(timestamp) FROM retracted WHERE is_final
    ON CONFLICT (symbol) DO UPDATE SET stale_from = least(symbol_state.stale_from, EXCLUDED.stale_from)
)
SELECT count(*) FROM retracted
