"""The features against independent implementations, no look-ahead, and incremental = full."""

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pandas_ta_classic as pta
import pytest
import ta
from bokeh_sampledata.stocks import AAPL, IBM, MSFT
from hypothesis import given, settings
from hypothesis import strategies as st

from include.mltrading.features.compute import compute
from include.mltrading.features.definitions import COLUMNS, FEATURES, LOOKBACK_BARS

RECURSIVE = [feature.column for feature in FEATURES if feature.recursive]
UNIT = {feature.column: feature.unit for feature in FEATURES}
PERCENT = {"williams_r", "rsi", "stoch_k", "stoch_d", "adx", "cci", "mfi"}
OHLCV = ["open", "high", "low", "close", "volume"]


def random_bars(n, seed):
    """n bars of a random walk, no two prices equal."""
    rng = np.random.default_rng(seed)
    close = rng.uniform(1, 1000) * np.exp(np.cumsum(rng.normal(0, 0.01, n)))
    open = close * np.exp(rng.normal(0, 0.004, n))
    return pd.DataFrame(
        {
            "open": open,
            "high": np.maximum(open, close) * np.exp(np.abs(rng.normal(0, 0.003, n))),
            "low": np.minimum(open, close) * np.exp(-np.abs(rng.normal(0, 0.003, n))),
            "close": close,
            "volume": np.floor(rng.lognormal(12, 1, n)),
        }
    )


def awkward_bars(n, seed):
    """Bars on a coarse price grid, often equal, with pauses, at times without volume."""
    bars = random_bars(n, seed)
    rng = np.random.default_rng(seed)
    for _ in range(rng.integers(0, 4)):
        start = int(rng.integers(0, n))
        stop = start + int(rng.integers(5, 60))
        bars.iloc[start:stop, :4] = bars["close"].iloc[start]
    for _ in range(rng.integers(0, 3)):
        start = int(rng.integers(0, n))
        bars.iloc[start : start + int(rng.integers(5, 40)), 4] = 0.0
    grid = bars["close"].iloc[0] / 2 ** rng.integers(6, 12)
    bars.iloc[:, :4] = np.maximum(np.round(bars.iloc[:, :4] / grid), 1) * grid
    return bars


def features(bars):
    return pd.DataFrame(compute(*(bars[column].to_numpy(dtype=float) for column in bars)), columns=COLUMNS)


# A plain reading of the formulas, in pandas and loops.


def wilder(values, first):
    """Wilder's average over 14, started at index `first` as the mean of the 14 values up to there."""
    values = np.asarray(values)
    out = np.full(len(values), np.nan)
    out[first] = values[first - 13 : first + 1].mean()
    for t in range(first + 1, len(values)):
        out[t] = (out[t - 1] * 13 + values[t]) / 14
    return out


def ema(values, n, first):
    values = np.asarray(values)
    out = np.full(len(values), np.nan)
    out[first] = values[first - n + 1 : first + 1].mean()
    for t in range(first + 1, len(values)):
        out[t] = out[t - 1] + 2 / (n + 1) * (values[t] - out[t - 1])
    return out


def wilder_sum(values):
    """Wilder's running sum over 14 as he starts it: 13 values, then sum - sum / 14 + value."""
    values = np.asarray(values)
    out = np.full(len(values), np.nan)
    out[13] = values[1:14].sum()
    for t in range(14, len(values)):
        out[t] = out[t - 1] - out[t - 1] / 14 + values[t]
    return out


def rolling(values, n, function, **options):
    """`function` of each window by itself: pandas' rolling moments carry rounding errors along."""
    values = np.asarray(values)
    windows = np.lib.stride_tricks.sliding_window_view(values, n)
    return np.r_[np.full(n - 1, np.nan), function(windows, axis=1, **options)]


def mean_deviation(windows, axis):
    return np.abs(windows - windows.mean(axis=axis, keepdims=True)).mean(axis=axis)


def reference(bars):
    o, h, lo, c, v = (bars[column] for column in OHLCV)
    f = pd.DataFrame(index=bars.index)
    f["returns"] = c / c.shift(1) - 1
    f["log_returns"] = np.log(c / c.shift(1))
    f["high_low_pct"] = (h - lo) / c
    f["open_close_pct"] = (c - o) / o
    f["price_acceleration"] = f["returns"] - f["returns"].shift(1)
    f["returns_sign"] = np.sign(f["returns"])
    for name, n in (("short", 24), ("med", 120), ("long", 480)):
        f[f"sma_{name}"] = rolling(c, n, np.mean)
        f[f"price_to_sma_{name}"] = c / f[f"sma_{name}"]
    f["sma_short_to_med"] = f["sma_short"] / f["sma_med"]
    f["sma_med_to_long"] = f["sma_med"] / f["sma_long"]
    for name, n in (("short", 12), ("med", 24), ("long", 120)):
        f[f"realized_vol_{name}"] = rolling(f["returns"], n, np.std, ddof=1) * math.sqrt(24)
    gk = 0.5 * np.log(h / lo) ** 2 - (2 * math.log(2) - 1) * np.log(c / o) ** 2
    f["gk_volatility"] = np.sqrt(24 * rolling(gk, 24, np.mean))
    f["vol_of_vol"] = rolling(f["realized_vol_med"], 24, np.std, ddof=1)
    middle, deviation = rolling(c, 20, np.mean), rolling(c, 20, np.std)
    upper, lower = middle + 2 * deviation, middle - 2 * deviation
    f["bb_upper"], f["bb_lower"] = upper, lower
    f["bb_position"] = (c - lower) / (upper - lower)
    f["bb_squeeze"] = (upper - lower) / middle
    macd = ema(c, 12, 25) - ema(c, 26, 25)
    signal = ema(macd, 9, 33)
    macd[:33] = np.nan
    f["macd"], f["macd_signal"], f["macd_histogram"] = macd, signal, macd - signal
    f["macd_normalized"] = macd / c
    true_range = np.maximum(h, c.shift(1)) - np.minimum(lo, c.shift(1))
    f["atr"] = wilder(true_range, 14)
    f["atr_normalized"] = f["atr"] / c
    highest, lowest = rolling(h, 14, np.max), rolling(lo, 14, np.min)
    f["williams_r"] = -100 * (highest - c) / (highest - lowest)
    gain, loss = wilder(c.diff().clip(lower=0), 14), wilder(-c.diff().clip(upper=0), 14)
    f["rsi"] = 100 * gain / (gain + loss)
    k = rolling(100 * (c - lowest) / (highest - lowest), 3, np.mean)
    f["stoch_d"] = rolling(k, 3, np.mean)
    f["stoch_k"] = np.where(f["stoch_d"].notna(), k, np.nan)
    up, down = h.diff(), -lo.diff()
    plus, minus = up.where((up > down) & (up > 0), 0.0), down.where((down > up) & (down > 0), 0.0)
    plus_di, minus_di = wilder_sum(plus) / wilder_sum(true_range), wilder_sum(minus) / wilder_sum(true_range)
    f["adx"] = wilder(100 * np.abs(plus_di - minus_di) / (plus_di + minus_di), 27)
    p = (h + lo + c) / 3
    f["cci"] = (p - rolling(p, 20, np.mean)) / (0.015 * rolling(p, 20, mean_deviation))
    flow, change = p * v, p.diff()
    rising = rolling(flow.where(change > 0, change.where(change.isna(), 0.0)), 14, np.sum)
    falling = rolling(flow.where(change < 0, change.where(change.isna(), 0.0)), 14, np.sum)
    f["mfi"] = 100 * rising / (rising + falling)
    return f[list(COLUMNS)]


def assert_close(actual, expected, close, column, rtol=1e-9):
    """Equal to rtol; near zero, where a difference has lost digits, to rtol of a thousandth of the scale."""
    scale = np.asarray(close) if UNIT[column] == "USD" else 100 if column in PERCENT else 1
    actual, expected = np.asarray(actual), np.asarray(expected)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected), err_msg=column)
    excess = np.abs(actual - expected) - rtol * np.maximum(np.abs(expected), 1e-3 * scale)
    assert not (excess > 0).any(), f"{column}: {np.nanmax(np.abs(actual - expected))}"


@pytest.mark.parametrize("seed", range(3))
def test_all_features_equal_a_plain_reading_of_the_formulas(seed):
    bars = random_bars(1000, seed)
    actual, expected = features(bars), reference(bars)
    for column in COLUMNS:
        assert_close(actual[column], expected[column], bars["close"], column)


@pytest.mark.parametrize("stock", [AAPL, IBM, MSFT], ids=["AAPL", "IBM", "MSFT"])
def test_all_features_of_real_prices_equal_a_plain_reading_of_the_formulas(stock):
    bars = pd.DataFrame({key: np.array(stock[key], dtype=float) for key in OHLCV})
    actual, expected = features(bars), reference(bars)
    # Prices in cents: where the typical price moved by rounding only, the plain reading counts it as a move.
    typical = bars[["high", "low", "close"]].sum(axis=1) / 3
    tie = (typical.diff().abs() < 1e-9 * typical).rolling(14).max() > 0
    expected["mfi"] = expected["mfi"].where(~tie, actual["mfi"])
    assert tie.mean() < 0.2
    for column in COLUMNS:
        assert_close(actual[column], expected[column], bars["close"], column)


# Two libraries, written by others. Which ones deviate, and how, stands beside the comparison.


@pytest.mark.parametrize("seed", range(2))
def test_features_equal_those_of_pandas_ta_classic(seed):
    bars = random_bars(800, seed)
    _, h, lo, c, v = (bars[column] for column in OHLCV)
    bands = pta.bbands(c, length=20, std=2, ddof=0, talib=False)
    macd = pta.macd(c, 12, 26, 9, talib=False)
    stoch = pta.stoch(h, lo, c, 14, 3, 3, talib=False)
    expected = {
        "returns": pta.percent_return(c),
        "log_returns": pta.log_return(c),
        "sma_short": pta.sma(c, 24, talib=False),
        "sma_med": pta.sma(c, 120, talib=False),
        "sma_long": pta.sma(c, 480, talib=False),
        "realized_vol_short": pta.stdev(c.pct_change(), 12, ddof=1, talib=False) * math.sqrt(24),
        "realized_vol_long": pta.stdev(c.pct_change(), 120, ddof=1, talib=False) * math.sqrt(24),
        "bb_upper": bands.filter(like="BBU").iloc[:, 0],
        "bb_lower": bands.filter(like="BBL").iloc[:, 0],
        "bb_position": bands.filter(like="BBP").iloc[:, 0],
        "bb_squeeze": bands.filter(like="BBB").iloc[:, 0] / 100,
        "macd": macd.iloc[:, 0],
        "macd_histogram": macd.iloc[:, 1],
        "macd_signal": macd.iloc[:, 2],
        "atr": pta.atr(h, lo, c, 14, talib=False),
        "williams_r": pta.willr(h, lo, c, 14, talib=False),
        "rsi": pta.rsi(c, 14, talib=False),
        "stoch_k": stoch.iloc[:, 0],
        "stoch_d": stoch.iloc[:, 1],
        "adx": pta.adx(h, lo, c, 14, talib=False).iloc[:, 0],
        "cci": pta.cci(h, lo, c, 20, talib=False),
        "mfi": pta.mfi(h, lo, c, v, 14, talib=False),
    }
    actual = features(bars)
    for column, values in expected.items():
        # MACD's fast average is started at bar 11 here and at bar 25 by TA-Lib, others as an ewm() from the
        # first value; rolling sums and deviations carry rounding along. Compared once the start has faded.
        start = 650 if column in RECURSIVE else 500 if column == "sma_long" else 150
        assert_close(actual[column][start:], values[start:], c[start:], column)


@pytest.mark.parametrize("seed", range(2))
def test_features_equal_those_of_ta(seed):
    bars = random_bars(800, seed)
    _, h, lo, c, v = (bars[column] for column in OHLCV)
    bands = ta.volatility.BollingerBands(c, 20, 2)
    macd = ta.trend.MACD(c, 26, 12, 9)
    fast = ta.momentum.StochasticOscillator(h, lo, c, 14, 3)
    expected = {
        "bb_upper": bands.bollinger_hband(),
        "bb_lower": bands.bollinger_lband(),
        "bb_position": bands.bollinger_pband(),
        "bb_squeeze": bands.bollinger_wband() / 100,
        "macd": macd.macd(),
        "macd_signal": macd.macd_signal(),
        "macd_histogram": macd.macd_diff(),
        "atr": ta.volatility.AverageTrueRange(h, lo, c, 14).average_true_range(),
        "williams_r": ta.momentum.WilliamsRIndicator(h, lo, c, 14).williams_r(),
        "rsi": ta.momentum.RSIIndicator(c, 14).rsi(),
        # ta has the fast stochastic only: its signal line is the slow %K.
        "stoch_k": fast.stoch_signal(),
        "stoch_d": fast.stoch_signal().rolling(3).mean(),
        "adx": ta.trend.ADXIndicator(h, lo, c, 14).adx(),
        "cci": ta.trend.CCIIndicator(h, lo, c, 20).cci(),
        "mfi": ta.volume.MFIIndicator(h, lo, c, v, 14).money_flow_index(),
    }
    actual = features(bars)
    for column, values in expected.items():
        # ta starts EMA and RSI at the first price, and ATR with a first true range of high - low. Its ADX has
        # a last value of its own: the sums' loops end one bar early and leave a 0 there.
        start, stop = (650 if column in RECURSIVE else 150), (-1 if column == "adx" else None)
        assert_close(actual[column][start:stop], values[start:stop], c[start:stop], column)


# No look-ahead, and incremental = full.

SEEDS = st.integers(0, 2**32 - 1)
BARS = st.sampled_from([random_bars, awkward_bars])


@settings(max_examples=60, deadline=None)
@given(make=BARS, seed=SEEDS, n=st.integers(1, 700), data=st.data())
def test_nothing_after_a_bar_changes_its_row(make, seed, n, data):
    t = data.draw(st.integers(0, n - 1), label="t")
    bars = make(n, seed)
    other = pd.concat([bars[: t + 1], make(n, seed + 1)[t + 1 :]])
    longer = pd.concat([bars[: t + 1], make(50, seed + 2)])
    expected = features(bars).to_numpy()[: t + 1]
    for changed in (other, longer, bars[: t + 1]):
        np.testing.assert_array_equal(features(changed).to_numpy()[: t + 1], expected)


@settings(max_examples=40, deadline=None)
@given(make=BARS, seed=SEEDS, n=st.integers(1, 2600), data=st.data())
def test_incremental_runs_equal_one_full_run(make, seed, n, data):
    bars = make(n, seed)
    cuts = sorted(data.draw(st.sets(st.integers(0, n), max_size=4), label="cuts") | {0, n})
    full = features(bars)
    parts = []
    for start, stop in pairwise(cuts):
        begin = max(0, start - LOOKBACK_BARS)
        parts.append(features(bars[begin:stop])[start - begin :])
    pieces = pd.concat(parts, ignore_index=True)
    for feature in FEATURES:
        column = feature.column
        if feature.recursive:
            assert_close(pieces[column], full[column], bars["close"], column)
        else:
            np.testing.assert_array_equal(pieces[column], full[column], err_msg=column)


def test_a_pause_longer_than_the_look_back_does_not_part_incremental_from_full():
    bars = random_bars(1600, 4)
    bars.iloc[300:1100, :4] = bars["close"].iloc[300]
    full = features(bars)
    for start in (901, 950, 1099, 1100, 1101, 1120, 1300):
        part = features(bars[start - LOOKBACK_BARS :])[LOOKBACK_BARS:]
        for column in COLUMNS:
            assert_close(part[column], full[column][start:], bars["close"][start:], column)
