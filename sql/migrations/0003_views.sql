-- Getting the data out: bars with their features, and the newest such row of each symbol.

CREATE VIEW bars_with_features AS
SELECT
    symbol, timestamp, open, high, low, close, volume,
    returns, log_returns, high_low_pct, open_close_pct, price_acceleration, returns_sign, sma_short,
    sma_med, sma_long, price_to_sma_short, price_to_sma_med, price_to_sma_long, sma_short_to_med,
    sma_med_to_long, realized_vol_short, realized_vol_med, realized_vol_long, gk_volatility, vol_of_vol,
    bb_upper, bb_lower, bb_position, bb_squeeze, macd, macd_signal, macd_histogram, macd_normalized, atr,
    atr_normalized, williams_r, rsi, stoch_k, stoch_d, adx, cci, mfi,
    feature_version
FROM market_data
JOIN feature_engineered_data USING (symbol, timestamp)
WHERE is_final;
COMMENT ON VIEW bars_with_features IS
    'final bars with their 36 features; one whose features are yet to be computed is not among them';

-- One index probe for each symbol, instead of a walk through all rows.
CREATE VIEW latest_bars_with_features AS
SELECT latest.*
FROM symbol_state
CROSS JOIN LATERAL (
    SELECT * FROM bars_with_features
    WHERE bars_with_features.symbol = symbol_state.symbol
    ORDER BY timestamp DESC LIMIT 1
) AS latest;
COMMENT ON VIEW latest_bars_with_features IS
    'the newest row of bars_with_features of each symbol';
