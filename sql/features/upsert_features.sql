-- One symbol's feature rows, a column at a time. NaN stands for "not defined" and is stored as NULL;
-- a row that would not change is not rewritten.
INSERT INTO feature_engineered_data AS stored (
    symbol, timestamp,
    returns, log_returns, high_low_pct, open_close_pct, price_acceleration, returns_sign, sma_short,
    sma_med, sma_long, price_to_sma_short, price_to_sma_med, price_to_sma_long, sma_short_to_med,
    sma_med_to_long, realized_vol_short, realized_vol_med, realized_vol_long, gk_volatility,
    vol_of_vol, bb_upper, bb_lower, bb_position, bb_squeeze, macd, macd_signal, macd_histogram,
    macd_normalized, atr, atr_normalized, williams_r, rsi, stoch_k, stoch_d, adx, cci, mfi,
    feature_version
)
SELECT
    %(symbol)s, timestamp,
    nullif(returns, 'NaN'), nullif(log_returns, 'NaN'), nullif(high_low_pct, 'NaN'),
    nullif(open_close_pct, 'NaN'), nullif(price_acceleration, 'NaN'), nullif(returns_sign, 'NaN'),
    nullif(sma_short, 'NaN'), nullif(sma_med, 'NaN'), nullif(sma_long, 'NaN'),
    nullif(price_to_sma_short, 'NaN'), nullif(price_to_sma_med, 'NaN'),
    nullif(price_to_sma_long, 'NaN'), nullif(sma_short_to_med, 'NaN'), nullif(sma_med_to_long, 'NaN'),
    nullif(realized_vol_short, 'NaN'), nullif(realized_vol_med, 'NaN'),
    nullif(realized_vol_long, 'NaN'), nullif(gk_volatility, 'NaN'), nullif(vol_of_vol, 'NaN'),
    nullif(bb_upper, 'NaN'), nullif(bb_lower, 'NaN'), nullif(bb_position, 'NaN'),
    nullif(bb_squeeze, 'NaN'), nullif(macd, 'NaN'), nullif(macd_signal, 'NaN'),
    nullif(macd_histogram, 'NaN'), nullif(macd_normalized, 'NaN'), nullif(atr, 'NaN'),
    nullif(atr_normalized, 'NaN'), nullif(williams_r, 'NaN'), nullif(rsi, 'NaN'),
    nullif(stoch_k, 'NaN'), nullif(stoch_d, 'NaN'), nullif(adx, 'NaN'), nullif(cci, 'NaN'),
    nullif(mfi, 'NaN'),
    %(feature_version)s
FROM unnest(
    %(timestamp)s::timestamptz[],
    %(returns)s::float8[], %(log_returns)s::float8[], %(high_low_pct)s::float8[],
    %(open_close_pct)s::float8[], %(price_acceleration)s::float8[], %(returns_sign)s::float8[],
    %(sma_short)s::float8[], %(sma_med)s::float8[], %(sma_long)s::float8[],
    %(price_to_sma_short)s::float8[], %(price_to_sma_med)s::float8[], %(price_to_sma_long)s::float8[],
    %(sma_short_to_med)s::float8[], %(sma_med_to_long)s::float8[], %(realized_vol_short)s::float8[],
    %(realized_vol_med)s::float8[], %(realized_vol_long)s::float8[], %(gk_volatility)s::float8[],
    %(vol_of_vol)s::float8[], %(bb_upper)s::float8[], %(bb_lower)s::float8[],
    %(bb_position)s::float8[], %(bb_squeeze)s::float8[], %(macd)s::float8[], %(macd_signal)s::float8[],
    %(macd_histogram)s::float8[], %(macd_normalized)s::float8[], %(atr)s::float8[],
    %(atr_normalized)s::float8[], %(williams_r)s::float8[], %(rsi)s::float8[], %(stoch_k)s::float8[],
    %(stoch_d)s::float8[], %(adx)s::float8[], %(cci)s::float8[], %(mfi)s::float8[]
) AS computed (
    timestamp,
    returns, log_returns, high_low_pct, open_close_pct, price_acceleration, returns_sign, sma_short,
    sma_med, sma_long, price_to_sma_short, price_to_sma_med, price_to_sma_long, sma_short_to_med,
    sma_med_to_long, realized_vol_short, realized_vol_med, realized_vol_long, gk_volatility,
    vol_of_vol, bb_upper, bb_lower, bb_position, bb_squeeze, macd, macd_signal, macd_histogram,
    macd_normalized, atr, atr_normalized, williams_r, rsi, stoch_k, stoch_d, adx, cci, mfi
)
ORDER BY timestamp
ON CONFLICT (symbol, timestamp) DO UPDATE SET
    returns = EXCLUDED.returns, log_returns = EXCLUDED.log_returns,
    high_low_pct = EXCLUDED.high_low_pct, open_close_pct = EXCLUDED.open_close_pct,
    price_acceleration = EXCLUDED.price_acceleration, returns_sign = EXCLUDED.returns_sign,
    sma_short = EXCLUDED.sma_short, sma_med = EXCLUDED.sma_med, sma_long = EXCLUDED.sma_long,
    price_to_sma_short = EXCLUDED.price_to_sma_short, price_to_sma_med = EXCLUDED.price_to_sma_med,
    price_to_sma_long = EXCLUDED.price_to_sma_long, sma_short_to_med = EXCLUDED.sma_short_to_med,
    sma_med_to_long = EXCLUDED.sma_med_to_long, realized_vol_short = EXCLUDED.realized_vol_short,
    realized_vol_med = EXCLUDED.realized_vol_med, realized_vol_long = EXCLUDED.realized_vol_long,
    gk_volatility = EXCLUDED.gk_volatility, vol_of_vol = EXCLUDED.vol_of_vol,
    bb_upper = EXCLUDED.bb_upper, bb_lower = EXCLUDED.bb_lower, bb_position = EXCLUDED.bb_position,
    bb_squeeze = EXCLUDED.bb_squeeze, macd = EXCLUDED.macd, macd_signal = EXCLUDED.macd_signal,
    macd_histogram = EXCLUDED.macd_histogram, macd_normalized = EXCLUDED.macd_normalized,
    atr = EXCLUDED.atr, atr_normalized = EXCLUDED.atr_normalized, williams_r = EXCLUDED.williams_r,
    rsi = EXCLUDED.rsi, stoch_k = EXCLUDED.stoch_k, stoch_d = EXCLUDED.stoch_d, adx = EXCLUDED.adx,
    cci = EXCLUDED.cci, mfi = EXCLUDED.mfi,
    feature_version = EXCLUDED.feature_version, updated_at = clock_timestamp()
WHERE (
    stored.returns, stored.log_returns, stored.high_low_pct, stored.open_close_pct,
    stored.price_acceleration, stored.returns_sign, stored.sma_short, stored.sma_med, stored.sma_long,
    stored.price_to_sma_short, stored.price_to_sma_med, stored.price_to_sma_long,
    stored.sma_short_to_med, stored.sma_med_to_long, stored.realized_vol_short,
    stored.realized_vol_med, stored.realized_vol_long, stored.gk_volatility, stored.vol_of_vol,
    stored.bb_upper, stored.bb_lower, stored.bb_position, stored.bb_squeeze, stored.macd,
    stored.macd_signal, stored.macd_histogram, stored.macd_normalized, stored.atr,
    stored.atr_normalized, stored.williams_r, stored.rsi, stored.stoch_k, stored.stoch_d, stored.adx,
    stored.cci, stored.mfi,
    stored.feature_version
) IS DISTINCT FROM (
    EXCLUDED.returns, EXCLUDED.log_returns, EXCLUDED.high_low_pct, EXCLUDED.open_close_pct,
    EXCLUDED.price_acceleration, EXCLUDED.returns_sign, EXCLUDED.sma_short, EXCLUDED.sma_med,
    EXCLUDED.sma_long, EXCLUDED.price_to_sma_short, EXCLUDED.price_to_sma_med,
    EXCLUDED.price_to_sma_long, EXCLUDED.sma_short_to_med, EXCLUDED.sma_med_to_long,
    EXCLUDED.realized_vol_short, EXCLUDED.realized_vol_med, EXCLUDED.realized_vol_long,
    EXCLUDED.gk_volatility, EXCLUDED.vol_of_vol, EXCLUDED.bb_upper, EXCLUDED.bb_lower,
    EXCLUDED.bb_position, EXCLUDED.bb_squeeze, EXCLUDED.macd, EXCLUDED.macd_signal,
    EXCLUDED.macd_histogram, EXCLUDED.macd_normalized, EXCLUDED.atr, EXCLUDED.atr_normalized,
    EXCLUDED.williams_r, EXCLUDED.rsi, EXCLUDED.stoch_k, EXCLUDED.stoch_d, EXCLUDED.adx, EXCLUDED.cci,
    EXCLUDED.mfi,
    EXCLUDED.feature_version
)
