-- A symbol's feature rows from a bar on, in time order: one row of arrays, NaN for NULL.
SELECT
    array_agg(timestamp),
    array_agg((feature_version = %(feature_version)s)::int::float8),
    array_agg(ARRAY[
        coalesce(returns, 'NaN'), coalesce(log_returns, 'NaN'), coalesce(high_low_pct, 'NaN'),
        coalesce(open_close_pct, 'NaN'), coalesce(price_acceleration, 'NaN'),
        coalesce(returns_sign, 'NaN'), coalesce(sma_short, 'NaN'), coalesce(sma_med, 'NaN'),
        coalesce(sma_long, 'NaN'), coalesce(price_to_sma_short, 'NaN'), coalesce(price_to_sma_med, 'NaN'),
        coalesce(price_to_sma_long, 'NaN'), coalesce(sma_short_to_med, 'NaN'),
        coalesce(sma_med_to_long, 'NaN'), coalesce(realized_vol_short, 'NaN'),
        coalesce(realized_vol_med, 'NaN'), coalesce(realized_vol_long, 'NaN'),
        coalesce(gk_volatility, 'NaN'), coalesce(vol_of_vol, 'NaN'), coalesce(bb_upper, 'NaN'),
        coalesce(bb_lower, 'NaN'), coalesce(bb_position, 'NaN'), coalesce(bb_squeeze, 'NaN'),
        coalesce(macd, 'NaN'), coalesce(macd_signal, 'NaN'), coalesce(macd_histogram, 'NaN'),
        coalesce(macd_normalized, 'NaN'), coalesce(atr, 'NaN'), coalesce(atr_normalized, 'NaN'),
        coalesce(williams_r, 'NaN'), coalesce(rsi, 'NaN'), coalesce(stoch_k, 'NaN'),
        coalesce(stoch_d, 'NaN'), coalesce(adx, 'NaN'), coalesce(cci, 'NaN'), coalesce(mfi, 'NaN')
    ])
FROM (
    SELECT * FROM feature_engineered_data
    WHERE symbol = %(symbol)s AND timestamp >= coalesce(%(since)s::timestamptz, '-infinity')
    ORDER BY timestamp
) AS features
