-- All bars before a split's ex-date, provisional ones too, come to the basis after it, and so do those that
-- only features look back to.
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
stale AS (
    INSERT INTO symbol_state (symbol, stale_from)
    SELECT %(symbol)s, min(timestamp) FROM restated WHERE is_final
    ON CONFLICT (symbol) DO UPDATE SET stale_from = least(symbol_state.stale_from, EXCLUDED.stale_from)
)
SELECT count(*) FROM restated
