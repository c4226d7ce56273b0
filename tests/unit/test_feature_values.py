"""Features worked out on paper, and what happens at the edges of the definitions."""

import math
import warnings

import numpy as np
import pytest
from bokeh_sampledata.stocks import AAPL, IBM, MSFT

from include.mltrading.features.compute import compute
from include.mltrading.features.definitions import COLUMNS, FEATURES

FIRST = {feature.column: feature.first_bar for feature in FEATURES}


def features(close, *, open=None, high=None, low=None, volume=None):
    """Features by column name; what is not given is the close, and a volume of 1,000."""
    close = np.asarray(close, dtype=float)
    prices = [close if x is None else x for x in (open, high, low)]
    arrays = [np.broadcast_to(x, close.shape).astype(float) for x in prices]
    traded = np.broadcast_to(1000.0 if volume is None else volume, close.shape).astype(float)
    values = compute(*arrays, close, traded)
    assert values.shape == (len(close), len(COLUMNS))
    assert values.dtype == np.float64
    assert values.flags.c_contiguous
    assert not np.isinf(values).any()
    return dict(zip(COLUMNS, values.T, strict=True))


def zigzag(n, low=99.0, high=101.0):
    return np.where(np.arange(n) % 2 == 0, low, high)


def random_close(n, seed=0):
    return 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.01, n)))


# Worked on paper.


def test_price_features():
    # 100 -> 110 is +10%, 110 -> 99 is -10%, so the acceleration is -20 points.
    f = features([100, 110, 99], open=[98, 100, 110], high=[102, 110, 111], low=[97, 99, 99])
    assert f["returns"][1:] == pytest.approx([0.1, -0.1], rel=1e-14)
    assert f["log_returns"][1:] == pytest.approx([math.log(1.1), math.log(0.9)], rel=1e-14)
    assert f["price_acceleration"][2] == pytest.approx(-0.2, rel=1e-14)
    assert list(f["returns_sign"][1:]) == [1, -1]
    assert f["high_low_pct"] == pytest.approx([5 / 100, 11 / 110, 12 / 99], rel=1e-14)
    assert f["open_close_pct"] == pytest.approx([2 / 98, 10 / 100, -11 / 110], rel=1e-14)


def test_averages_of_a_straight_line():
    # The mean of the last n of 1, 2, 3, … at value x is x - (n - 1) / 2: at 480 that is 468.5, 420.5, 240.5.
    f = features(np.arange(1, 481))
    assert f["sma_short"][-1] == pytest.approx(468.5, rel=1e-14)
    assert f["sma_med"][-1] == pytest.approx(420.5, rel=1e-14)
    assert f["sma_long"][-1] == pytest.approx(240.5, rel=1e-14)
    assert f["price_to_sma_short"][-1] == pytest.approx(480 / 468.5, rel=1e-14)
    assert f["price_to_sma_med"][-1] == pytest.approx(480 / 420.5, rel=1e-14)
    assert f["price_to_sma_long"][-1] == pytest.approx(480 / 240.5, rel=1e-14)
    assert f["sma_short_to_med"][-1] == pytest.approx(468.5 / 420.5, rel=1e-14)
    assert f["sma_med_to_long"][-1] == pytest.approx(420.5 / 240.5, rel=1e-14)


def test_realized_volatility_of_alternating_returns():
    # n returns, half +1% and half -1%: mean 0, sample variance 1e-4 n / (n - 1), times 24.
    f = features(100 * np.cumprod(np.r_[1.0, 1 + 0.01 * (-1.0) ** np.arange(120)]))
    for column, n in (("realized_vol_short", 12), ("realized_vol_med", 24), ("realized_vol_long", 120)):
        assert f[column][-1] == pytest.approx(0.01 * math.sqrt(24 * n / (n - 1)), rel=1e-12)


def test_volatility_of_volatility_of_a_single_jump():
    # One return r among 23 zeros: sample variance (r^2 - r^2 / 24) / 23 = r^2 / 24, so realized_vol_med is r
    # from bar 30 to 53 and 0 elsewhere. At bar 47 the last 24 of them are 18 times r and 6 times 0:
    # sample variance r^2 * 18 * 6 / (24 * 23).
    f = features(np.r_[np.full(30, 100.0), np.full(40, 103.0)])
    assert f["realized_vol_med"][[29, 30, 53, 54]] == pytest.approx([0, 0.03, 0.03, 0], rel=1e-12)
    assert f["vol_of_vol"][47] == pytest.approx(0.03 * math.sqrt(18 * 6 / (24 * 23)), rel=1e-12)


def test_garman_klass_of_identical_bars():
    # ln(h / l) = 0.02 and ln(c / o) = 0.01: 0.0004 / 2 - 0.38629436 * 0.0001 = 1.61370564e-4 a bar,
    # times 24 = 3.87289353e-3, and its root is 0.06223258.
    close = np.full(24, 100.0)
    high, low = close * math.exp(0.005), close * math.exp(-0.015)
    f = features(close, open=close * math.exp(-0.01), high=high, low=low)
    assert f["gk_volatility"][23] == pytest.approx(math.sqrt(24 * (2e-4 - 0.3862943611198906e-4)), rel=1e-12)
    assert f["gk_volatility"][23] == pytest.approx(0.06223258, abs=5e-9)


def test_bollinger_bands_of_a_zigzag():
    # Ten closes of 9 and ten of 11: mean 10, population deviation 1, bands 8 and 12; 11 is at 3/4 of the way.
    f = features(zigzag(20, 9, 11))
    assert f["bb_upper"][19] == pytest.approx(12, rel=1e-14)
    assert f["bb_lower"][19] == pytest.approx(8, rel=1e-14)
    assert f["bb_position"][19] == pytest.approx(0.75, rel=1e-14)
    assert f["bb_squeeze"][19] == pytest.approx(0.4, rel=1e-14)


def test_macd_of_a_straight_line():
    # On a line of slope 1 an n-bar average lags by (n - 1) / 2, the simple mean that starts it as well as the
    # exponential one after it: 12.5 - 5.5 = 7 from the first bar on, so the signal is 7 too.
    f = features(np.arange(100, 160))
    assert f["macd"][33:] == pytest.approx(7, rel=1e-12)
    assert f["macd_signal"][33:] == pytest.approx(7, rel=1e-12)
    assert f["macd_histogram"][33:] == pytest.approx(0, abs=1e-12)
    assert f["macd_normalized"][-1] == pytest.approx(7 / 159, rel=1e-12)


def test_atr_takes_a_gap_in_by_one_fourteenth():
    # True range 2 in every bar, so 2. Then a gap up by 14: 115 + 1 - 100 = 16, (13 * 2 + 16) / 14 = 3.
    close = np.r_[np.full(20, 100.0), 115.0]
    f = features(close, high=close + 1, low=close - 1)
    assert f["atr"][14:20] == pytest.approx(2, rel=1e-14)
    assert f["atr"][20] == pytest.approx(3, rel=1e-14)
    assert f["atr_normalized"][20] == pytest.approx(3 / 115, rel=1e-14)


def test_williams_r_and_stochastic_of_a_fixed_range():
    # Range 100 to 110. Closes 2.5, 5 and 7.5 above its bottom are 25, 50 and 75% of it; Williams' scale
    # counts down from the top: -25 at 75%. Means over 3: (25 + 50 + 75) / 3 = 50; with 25 before them the
    # last three means are 25, 100 / 3 and 50.
    f = features(np.r_[np.full(18, 102.5), 105, 107.5], high=110, low=100)
    assert f["williams_r"][-3:] == pytest.approx([-75, -50, -25], rel=1e-14)
    assert f["stoch_k"][-3:] == pytest.approx([25, 100 / 3, 50], rel=1e-14)
    assert f["stoch_d"][-1] == pytest.approx((25 + 100 / 3 + 50) / 3, rel=1e-14)


def test_rsi_by_wilders_average():
    # 7 rises of 2 and 7 falls of 1: G = 14 / 14 = 1, L = 7 / 14 = 0.5, RSI = 100 / 1.5. Then a rise of 1:
    # G = (13 + 1) / 14 = 1, L = 6.5 / 14, RSI = 100 / (1 + 6.5 / 14).
    close = 100 + np.cumsum(np.r_[0.0, np.tile([2.0, -1.0], 7), 1.0])
    f = features(close)
    assert f["rsi"][14:] == pytest.approx([100 / 1.5, 100 / (1 + 6.5 / 14)], rel=1e-12)


def test_adx_of_a_rise_that_ends():
    # Only +DM, 1 a bar: every DX is 100, and so is their mean, the ADX at bar 27. The sum of +DM starts as 13
    # at bar 13 and nears 14: 14 - (13/14)^14 at bar 27. Bar 28 falls by 3: +DM sum * 13/14 against 3.
    close = np.r_[np.arange(100.0, 128.0), 124.0]
    f = features(close, high=close + 1, low=close - 1)
    assert f["adx"][27] == pytest.approx(100, rel=1e-12)
    plus, minus = (14 - (13 / 14) ** 14) * 13 / 14, 3.0
    dx = 100 * (plus - minus) / (plus + minus)
    assert close[28] - 1 == close[27] - 1 - 3
    assert f["adx"][28] == pytest.approx((13 * 100 + dx) / 14, rel=1e-12)


def test_cci_of_a_zigzag():
    # Typical prices 99 and 101, ten each: mean 100, mean deviation 1, so (101 - 100) / 0.015.
    assert features(zigzag(20))["cci"][19] == pytest.approx(1 / 0.015, rel=1e-12)


def test_mfi_of_a_zigzag_with_more_volume_on_falls():
    # 7 rises to 101 with volume 10, 7 falls to 99 with volume 20.
    close = zigzag(15)
    f = features(close, volume=np.where(close > 100, 10.0, 20.0))
    rises, falls = 7 * 101 * 10, 7 * 99 * 20
    assert f["mfi"][14] == pytest.approx(100 * rises / (rises + falls), rel=1e-12)


# The edges of the definitions.

UNDEFINED_WHEN_CONSTANT = ["bb_position", "williams_r", "rsi", "stoch_k", "stoch_d", "adx", "cci", "mfi"]


@pytest.mark.parametrize("price", [1e-6, 0.1, 29.87, 187.2100067138672, 123456.78, 1e9])
def test_constant_prices_are_undefined_where_they_are_0_by_0_and_a_true_zero_elsewhere(price):
    f = features(np.full(700, price))
    for column in UNDEFINED_WHEN_CONSTANT:
        assert np.isnan(f[column]).all(), column
    at_the_price = {"sma_short", "sma_med", "sma_long", "bb_upper", "bb_lower"}
    at_one = {column for column in COLUMNS if "_to_" in column}
    for column in at_the_price | at_one:
        expected = price if column in at_the_price else 1
        assert f[column][FIRST[column] :] == pytest.approx(expected, rel=1e-12), column
    for column in ("macd", "macd_signal", "macd_histogram", "macd_normalized"):
        unit = 1 if column == "macd_normalized" else price
        assert f[column][33:] / unit == pytest.approx(0, abs=1e-12), column
    zero = set(COLUMNS) - set(UNDEFINED_WHEN_CONSTANT) - at_the_price - at_one
    for column in (column for column in zero if not column.startswith("macd")):
        assert (f[column][FIRST[column] :] == 0).all(), column


def test_what_is_undefined_during_a_pause_comes_back_after_it():
    close = np.r_[random_close(200), np.full(60, 100.0), random_close(200, seed=1)]
    moving = np.r_[np.full(200, 1.0), np.zeros(60), np.full(200, 1.0)]
    f = features(close, high=close + moving * 0.5, low=close - moving * 0.5)
    # The last bar before the pause is not at 100: the first bar of the pause still moves.
    last = {
        "bb_position": 260,
        "williams_r": 260,
        "cci": 260,
        "rsi": 260,
        "mfi": 260,
        "stoch_k": 262,  # a mean over 3 of what is undefined up to the pause's end
        "stoch_d": 264,  # and again
        "adx": 286,  # starts anew: bar 259 is its bar 0
    }
    first = {"bb_position": 219, "cci": 219, "rsi": 214, "mfi": 214, "adx": 214}
    for column, end in last.items():
        begin = first.get(column, 213)
        undefined = np.flatnonzero(np.isnan(f[column][50:])) + 50
        assert list(undefined) == list(range(begin, end)), column


def test_adx_after_a_pause_is_that_of_a_fresh_start():
    close = np.r_[random_close(200), np.full(30, 100.0), random_close(200, seed=1)]
    width = np.r_[np.full(200, 0.5), np.zeros(30), np.full(200, 0.5)]
    whole = features(close, high=close + width, low=close - width)["adx"]
    fresh = features(close[229:], high=(close + width)[229:], low=(close - width)[229:])["adx"]
    np.testing.assert_array_equal(whole[229:], fresh)
    assert np.isfinite(whole[256:]).all()


def test_adx_is_undefined_where_ranges_vary_but_nothing_moves_in_a_direction():
    # Highs and lows never change; only the close moves inside them.
    f = features(zigzag(60), high=110, low=90)
    assert np.isnan(f["adx"]).all()
    assert np.isfinite(f["atr"][14:]).all()


def test_no_volume_over_the_window_leaves_only_mfi_undefined():
    volume = np.full(600, 100.0)
    volume[500:530] = 0
    f = features(random_close(600), volume=volume)
    assert list(np.flatnonzero(np.isnan(f["mfi"][14:])) + 14) == list(range(513, 530))
    for column in set(COLUMNS) - {"mfi"}:
        assert np.isfinite(f[column][FIRST[column] :]).all(), column


@pytest.mark.parametrize("start", [0, 1])
def test_a_typical_price_equal_but_for_rounding_moves_no_money(start):
    # 5.05 + 5.03 + 5.04 and 5.06 + 5.02 + 5.04 are the same 15.12, and differ in float64's last bit.
    assert (5.05 + 5.03 + 5.04) / 3 != (5.06 + 5.02 + 5.04) / 3
    even = np.arange(start, start + 40) % 2 == 0
    f = features(np.full(40, 5.04), high=np.where(even, 5.05, 5.06), low=np.where(even, 5.03, 5.02))
    assert np.isnan(f["mfi"]).all()
    assert np.isnan(f["cci"]).all()


def test_prices_that_differ_in_the_last_bit_count_as_constant():
    f = features(np.random.default_rng(2).choice([187.21, np.nextafter(187.21, 200)], 600))
    for column in UNDEFINED_WHEN_CONSTANT:
        assert np.isnan(f[column]).all(), column


def test_only_rises_and_only_falls_are_defined():
    up = features(np.arange(100.0, 800.0))
    down = features(np.arange(800.0, 100.0, -1))
    for f, rsi, mfi in ((up, 100, 100), (down, 0, 0)):
        assert (f["rsi"][14:] == rsi).all()
        assert (f["mfi"][14:] == mfi).all()
        assert f["adx"][27:] == pytest.approx(100, rel=1e-12)
        for column in COLUMNS:
            assert np.isfinite(f[column][FIRST[column] :]).all(), column


@pytest.mark.parametrize("n", [0, 1, 2, 3, 13, 14, 15, 16, 28, 34, 100, 480])
def test_a_short_history_has_what_its_bars_allow(n):
    f = features(random_close(n), high=random_close(n) * 1.01, low=random_close(n) * 0.99)
    for column in COLUMNS:
        defined = np.isfinite(f[column])
        assert list(defined) == [bar >= FIRST[column] for bar in range(n)], column


def test_one_huge_jump_is_gone_when_it_leaves_the_window():
    quiet = random_close(1200)
    jump = quiet.copy()
    jump[300] *= 1e6
    a = features(quiet, high=quiet * 1.01, low=quiet * 0.99)
    b = features(jump, high=jump * 1.01, low=jump * 0.99)
    for feature in FEATURES:
        start = 301 + feature.first_bar
        after_a, after_b = a[feature.column][start:], b[feature.column][start:]
        if not feature.recursive:
            np.testing.assert_array_equal(after_a, after_b, err_msg=feature.column)
        else:
            scale = quiet[900:] if feature.unit == "USD" else 1
            difference = np.abs(a[feature.column] - b[feature.column])[900:] / scale
            assert difference.max() < 1e-9, feature.column


@pytest.mark.parametrize("factor", [2.0**-100, 2.0**100])
def test_tiny_and_huge_prices_give_the_same_features_but_for_the_unit(factor):
    # A power of two changes no digit, so everything must be equal to the last bit.
    close = random_close(700)
    a = features(close, high=close * 1.01, low=close * 0.99)
    b = features(close * factor, high=close * 1.01 * factor, low=close * 0.99 * factor)
    for feature in FEATURES:
        unit = factor if feature.unit == "USD" else 1
        np.testing.assert_array_equal(a[feature.column] * unit, b[feature.column], err_msg=feature.column)


@pytest.mark.parametrize("prices", [(1e-300, 1e300), (5e-324, 1.7e308), (1e300, 1.7e308), (1e-310, 1e-305)])
def test_prices_at_the_ends_of_float64_give_no_infinity_and_no_warning(prices):
    close = np.random.default_rng(3).choice(prices, 600)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features(close)


def test_deviations_keep_their_digits_on_a_large_price_level():
    # Closes 1e8 and 1e8 + 1/128: a running E[x^2] - E[x]^2 would see nothing of it.
    f = features(zigzag(700, 1e8, 1e8 + 1 / 128))
    assert f["bb_squeeze"][19:] == pytest.approx(4 / 256 / 1e8, rel=1e-9)
    assert f["bb_position"][-1] == pytest.approx(0.75, rel=1e-6)


def test_zero_is_never_negative():
    f = features(np.full(60, 110.0), high=110, low=100)
    assert not np.signbit(f["williams_r"][13:]).any()


# Bad input.


@pytest.mark.parametrize("name", ["open", "high", "low", "close", "volume"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0])
def test_a_bad_value_is_refused_by_name_and_place(name, value):
    arrays = {key: np.full(10, 100.0) for key in ("open", "high", "low", "close", "volume")}
    arrays[name][7] = value
    with pytest.raises(ValueError, match=rf"^{name}\[7\] is "):
        compute(**arrays)


def test_a_price_of_zero_is_refused_and_a_volume_of_zero_is_not():
    ones, zeros = np.ones(3), np.zeros(3)
    with pytest.raises(ValueError, match=r"^low\[0\] is 0.0: must be finite and > 0"):
        compute(ones, ones, zeros, ones, ones)
    compute(ones, ones, ones, ones, zeros)


@pytest.mark.parametrize(
    "bad",
    [np.arange(1, 4), np.ones(3, dtype=np.float32), np.ones((3, 1)), [1.0, 1.0, 1.0], np.float64(1)],
    ids=["integers", "float32", "two dimensions", "list", "scalar"],
)
def test_anything_but_a_float64_array_is_refused_by_name(bad):
    with pytest.raises(ValueError, match=r"^close: expected a 1-D float64 array$"):
        compute(np.ones(3), np.ones(3), np.ones(3), bad, np.ones(3))


def test_different_lengths_are_refused_by_name():
    with pytest.raises(ValueError, match=r"^volume: 2 bars, but open has 3$"):
        compute(np.ones(3), np.ones(3), np.ones(3), np.ones(3), np.ones(2))


def test_the_input_is_not_changed():
    close = random_close(700)
    arrays = [close * 0.999, close * 1.01, close * 0.99, close, np.full(700, 5.0)]
    copies = [array.copy() for array in arrays]
    compute(*arrays)
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_the_columns_of_a_table_give_the_same_bits_as_arrays():
    close = random_close(700)
    table = np.column_stack([close * 0.999, close * 1.01, close * 0.99, close, np.full(700, 5.0)])
    strided = compute(*table.T)
    np.testing.assert_array_equal(strided, compute(*(column.copy() for column in table.T)))


# Real prices: 13 years of daily bars.


@pytest.mark.parametrize("stock", [AAPL, IBM, MSFT], ids=["AAPL", "IBM", "MSFT"])
def test_real_prices_have_a_value_from_the_first_bar_on_and_none_before(stock):
    arrays = [np.array(stock[key], dtype=float) for key in ("open", "high", "low", "close", "volume")]
    assert len(arrays[0]) > 3000
    values = compute(*arrays)
    assert not np.isinf(values).any()
    for column, feature in zip(values.T, FEATURES, strict=True):
        assert np.isnan(column[: feature.first_bar]).all(), feature.column
        assert np.isfinite(column[feature.first_bar :]).all(), feature.column
    f = dict(zip(COLUMNS, values.T, strict=True))
    for column in ("rsi", "stoch_k", "stoch_d", "adx", "mfi"):
        defined = f[column][FIRST[column] :]
        assert ((defined >= -1e-9) & (defined <= 100 + 1e-9)).all(), column
    assert ((f["williams_r"][13:] >= -100 - 1e-9) & (f["williams_r"][13:] <= 1e-9)).all()
