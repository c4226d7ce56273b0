"""The features: the one place that says what each column is.

The SQL columns, docs/features.md, the computation's windows and the tests are all taken or checked from
here. Nothing but the standard library is imported, so that a DAG file or a schema check can read it.
"""

from __future__ import annotations

from dataclasses import dataclass

FEATURE_VERSION = "1"
"""Stored with every row; raising it makes the next features run recompute everything."""

LOOKBACK_BARS = 600
"""Bars of history read before the first row that an incremental run writes.

The longest finite window needs 479. The recursive indicators never forget entirely: Wilder's average of 14
keeps (13/14)**600 = 5e-20 of what came before, the 26-bar EMA (25/27)**600 = 9e-21, both far below float64's
own rounding. Counted in bars, never in hours.
"""

SMA_SHORT, SMA_MED, SMA_LONG = 24, 120, 480
VOL_SHORT, VOL_MED, VOL_LONG = 12, 24, 120
VOL_SCALE = 24
GARMAN_KLASS = 24
VOL_OF_VOL = 24
BOLLINGER, BOLLINGER_DEVIATIONS = 20, 2.0
MACD_FAST, MACD_SLOW, MACD_SIGNAL = 12, 26, 9
WILDER = 14
RANGE = 14
STOCH_SLOWING, STOCH_SMOOTHING = 3, 3
CCI, CCI_CONSTANT = 20, 0.015
MFI = 14

NEGLIGIBLE = 1e-12
"""A difference of two prices below this share of the price is float64 rounding, not a move.

Three prices added in another order differ by 1e-16 of their size; the smallest real tick, a cent on a share
of 1,000,000 dollars, is 1e-8 of it.
"""


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of feature_engineered_data.

    column: its name. group: the family, as a heading. formula: plain text; c, o, h, l, v are the bar's close,
    open, high, low, volume, `_1` is the previous bar, every count is in bars. windows: their lengths, in
    the order applied. unit: what a value of 1 means. first_bar: index (from 0) of the first bar with a
    value. undefined: when it is NULL after that, empty for never. source: where the formula comes from.
    recursive: True where all earlier bars count with fading weight, False where a value depends on its
    windows alone.
    """

    column: str
    group: str
    formula: str
    windows: tuple[int, ...]
    unit: str
    first_bar: int
    undefined: str
    source: str
    recursive: bool = False


_CLM = "Campbell, Lo & MacKinlay 1997, The Econometrics of Financial Markets, 1.4"
_MURPHY = "Murphy 1999, Technical Analysis of the Financial Markets"
_HULL = "close-to-close estimator; Hull, Options, Futures, and Other Derivatives, estimating volatility"
_GK = "Garman & Klass 1980, J. Business 53(1)"
_BOLLINGER = "Bollinger 2001, Bollinger on Bollinger Bands"
_APPEL = "Appel 2005, Technical Analysis: Power Tools for Active Investors"
_WILDER = "Wilder 1978, New Concepts in Technical Trading Systems"
_WILLIAMS = "Williams 1979, How I Made One Million Dollars"
_LANE = "Lane 1984, Lane's Stochastics, Stocks & Commodities 2(3)"
_LAMBERT = "Lambert 1980, Commodity Channel Index, Commodities, October"
_QUONG = "Quong & Soudack 1989, Volume-Weighted RSI: Money Flow, Stocks & Commodities 7(3)"
_HERE = "this project"

_FLAT_RANGE = "highest high = lowest low over the window"
_STOCH_FLAT = "highest high = lowest low over 14 bars, at any of the bars averaged"

FEATURES: tuple[Feature, ...] = (
    Feature("returns", "Price", "c / c_1 - 1", (1,), "ratio", 1, "", _CLM),
    Feature("log_returns", "Price", "ln(c / c_1)", (1,), "log ratio", 1, "", _CLM),
    Feature("high_low_pct", "Price", "(h - l) / c", (), "ratio", 0, "", _HERE),
    Feature("open_close_pct", "Price", "(c - o) / o", (), "ratio", 0, "", _HERE),
    Feature("price_acceleration", "Price", "returns - returns_1", (1, 1), "ratio", 2, "", _HERE),
    Feature("returns_sign", "Price", "sign(returns)", (1,), "-1, 0 or 1", 1, "", _HERE),
    Feature("sma_short", "Averages", "mean of c over 24", (SMA_SHORT,), "USD", 23, "", _MURPHY),
    Feature("sma_med", "Averages", "mean of c over 120", (SMA_MED,), "USD", 119, "", _MURPHY),
    Feature("sma_long", "Averages", "mean of c over 480", (SMA_LONG,), "USD", 479, "", _MURPHY),
    Feature("price_to_sma_short", "Averages", "c / sma_short", (SMA_SHORT,), "ratio", 23, "", _HERE),
    Feature("price_to_sma_med", "Averages", "c / sma_med", (SMA_MED,), "ratio", 119, "", _HERE),
    Feature("price_to_sma_long", "Averages", "c / sma_long", (SMA_LONG,), "ratio", 479, "", _HERE),
    Feature(
        "sma_short_to_med", "Averages", "sma_short / sma_med", (SMA_SHORT, SMA_MED), "ratio", 119, "", _HERE
    ),
    Feature(
        "sma_med_to_long", "Averages", "sma_med / sma_long", (SMA_MED, SMA_LONG), "ratio", 479, "", _HERE
    ),
    Feature(
        "realized_vol_short",
        "Volatility",
        "sample standard deviation (n - 1) of returns over 12, times sqrt(24)",
        (VOL_SHORT,),
        "ratio per 24 bars",
        12,
        "",
        _HULL,
    ),
    Feature(
        "realized_vol_med",
        "Volatility",
        "sample standard deviation (n - 1) of returns over 24, times sqrt(24)",
        (VOL_MED,),
        "ratio per 24 bars",
        24,
        "",
        _HULL,
    ),
    Feature(
        "realized_vol_long",
        "Volatility",
        "sample standard deviation (n - 1) of returns over 120, times sqrt(24)",
        (VOL_LONG,),
        "ratio per 24 bars",
        120,
        "",
        _HULL,
    ),
    Feature(
        "gk_volatility",
        "Volatility",
        "sqrt(24 * mean over 24 of (ln(h / l)^2 / 2 - (2 ln 2 - 1) ln(c / o)^2)); not below 0",
        (GARMAN_KLASS,),
        "log ratio per 24 bars",
        23,
        "",
        _GK,
    ),
    Feature(
        "vol_of_vol",
        "Volatility",
        "sample standard deviation (n - 1) of realized_vol_med over 24",
        (VOL_MED, VOL_OF_VOL),
        "ratio per 24 bars",
        47,
        "",
        _HERE,
    ),
    Feature(
        "bb_upper",
        "Bollinger bands",
        "mean of c over 20 + 2 population standard deviations (n) of c over 20",
        (BOLLINGER,),
        "USD",
        19,
        "",
        _BOLLINGER,
    ),
    Feature(
        "bb_lower",
        "Bollinger bands",
        "mean of c over 20 - 2 population standard deviations (n) of c over 20",
        (BOLLINGER,),
        "USD",
        19,
        "",
        _BOLLINGER,
    ),
    Feature(
        "bb_position",
        "Bollinger bands",
        "(c - bb_lower) / (bb_upper - bb_lower)",
        (BOLLINGER,),
        "ratio",
        19,
        "all closes of the window are equal",
        _BOLLINGER + " (%b)",
    ),
    Feature(
        "bb_squeeze",
        "Bollinger bands",
        "(bb_upper - bb_lower) / mean of c over 20",
        (BOLLINGER,),
        "ratio",
        19,
        "",
        _BOLLINGER + " (BandWidth)",
    ),
    Feature(
        "macd",
        "MACD",
        "EMA of c over 12 - EMA of c over 26; both averages start as the simple mean at bar 25",
        (MACD_FAST, MACD_SLOW),
        "USD",
        33,
        "",
        _APPEL,
        recursive=True,
    ),
    Feature(
        "macd_signal",
        "MACD",
        "EMA of macd over 9, started as the simple mean of its first 9 values",
        (MACD_FAST, MACD_SLOW, MACD_SIGNAL),
        "USD",
        33,
        "",
        _APPEL,
        recursive=True,
    ),
    Feature(
        "macd_histogram",
        "MACD",
        "macd - macd_signal",
        (MACD_FAST, MACD_SLOW, MACD_SIGNAL),
        "USD",
        33,
        "",
        _APPEL,
        recursive=True,
    ),
    Feature(
        "macd_normalized", "MACD", "macd / c", (MACD_FAST, MACD_SLOW), "ratio", 33, "", _HERE, recursive=True
    ),
    Feature(
        "atr",
        "Range",
        "Wilder's average over 14 of max(h, c_1) - min(l, c_1), started as the simple mean of the first 14",
        (WILDER,),
        "USD",
        14,
        "",
        _WILDER,
        recursive=True,
    ),
    Feature("atr_normalized", "Range", "atr / c", (WILDER,), "ratio", 14, "", _HERE, recursive=True),
    Feature(
        "williams_r",
        "Range",
        "100 (c - highest h over 14) / (highest h over 14 - lowest l over 14)",
        (RANGE,),
        "percent, -100 to 0",
        13,
        _FLAT_RANGE,
        _WILLIAMS,
    ),
    Feature(
        "rsi",
        "Oscillators",
        "100 G / (G + L); G and L are Wilder's averages over 14 of the rises and the falls of c; "
        "only rises give 100, only falls 0",
        (WILDER,),
        "percent, 0 to 100",
        14,
        "c did not change over the last 14 bars",
        _WILDER,
        recursive=True,
    ),
    Feature(
        "stoch_k",
        "Oscillators",
        "mean over 3 of 100 (c - lowest l over 14) / (highest h over 14 - lowest l over 14)",
        (RANGE, STOCH_SLOWING),
        "percent, 0 to 100",
        17,
        _STOCH_FLAT,
        _LANE,
    ),
    Feature(
        "stoch_d",
        "Oscillators",
        "mean over 3 of stoch_k",
        (RANGE, STOCH_SLOWING, STOCH_SMOOTHING),
        "percent, 0 to 100",
        17,
        _STOCH_FLAT,
        _LANE,
    ),
    Feature(
        "adx",
        "Oscillators",
        "Wilder's average over 14 of 100 |+DI - -DI| / (+DI + -DI)",
        (WILDER, WILDER),
        "percent, 0 to 100",
        27,
        "no directional movement (h - h_1 and l_1 - l both at most 0, or equal) over the last 14 bars; "
        "the averages then start anew, 27 bars up to the next value",
        _WILDER,
        recursive=True,
    ),
    Feature(
        "cci",
        "Oscillators",
        "(p - mean of p over 20) / (0.015 * mean absolute deviation of p over 20), p = (h + l + c) / 3",
        (CCI,),
        "index",
        19,
        "p is the same at all bars of the window",
        _LAMBERT,
    ),
    Feature(
        "mfi",
        "Oscillators",
        "100 P / (P + N); P and N are the sums over 14 of p * v at bars where p rose and where it fell, "
        "p = (h + l + c) / 3",
        (MFI,),
        "percent, 0 to 100",
        14,
        "P + N = 0: no volume over the last 14 bars, or none at a bar where p changed",
        _QUONG,
    ),
)

COLUMNS: tuple[str, ...] = tuple(feature.column for feature in FEATURES)
