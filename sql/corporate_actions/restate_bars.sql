-- All bars before a split's ex-date, provisional ones too, come to another basis, and so do those that only
-- features look back to, and dividends; what was done goes on record.
WITH restated AS (
    UPDATE market_data SET
        open = open / %(ratio)s, high = high / %(ratio)s, low = low / %(ratio)s, close = close / %(ratio)s,
        volume = round(volume * %(ratio)s), updated_at = clock_timestamp()
    WHERE symbol = %(symbol)s AND timestamp < %(before)s
    RETURNING timestamp, is_final
),
lookback AS (
    UPDATE lookback_bars SET
        open = open / %(ratio)s, high = high / %(ratio)s, low = low / %(ratio)s, close = close / %(ratio)s,
        volume = round(volume * %(ratio)s)
    WHERE symbol = %(symbol)s AND timestamp < %(before)s
),
paid AS (
    UPDATE corporate_actions SET value = value / %(ratio)s
    WHERE symbol = %(symbol)s AND kind = 'dividend' AND ex_date < %(ex_date)s
),
stale AS (
    INSERT INTO symbol_state (symbol, stale_from)
    SELECT %(symbol)s, min(timestamp) FROM restated WHERE is_final
    ON CONFLICT (symbol) DO UPDATE SET stale_from = least(symbol_state.stale_from, EXCLUDED.stale_from)
)
INSERT INTO restatements (symbol, ex_date, ratio, bars, reason, correlation_id)
SELECT %(symbol)s, %(ex_date)s, %(ratio)s, count(*), %(reason)s, %(correlation_id)s FROM restated
RETURNING bars
