-- Rows of bars that have none yet; see upsert_features for the others.
COPY feature_engineered_data (
    symbol, timestamp,
    returns, log_returns, high_low_pct, open_close_pct, price_acceleration, returns_sign, sma_short,
    sma_med, sma_long, price_to_sma_short, price_to_sma_med, price_to_sma_long, sma_short_to_med,
    sma_med_to_long, realized_vol_short, realized_vol_med, realized_vol_long, gk_volatility, vol_of_vol,
    bb_upper, bb_lower, bb_position, bb_squeeze, macd, macd_signal, macd_histogram, macd_normalized,
    atr, atr_normalized, williams_r, rsi, stoch_k, stoch_d, adx, cci, mfi,
    feature_version
) FROM STDIN (FORMAT binary)
