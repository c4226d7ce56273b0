"""All features of one symbol from its bars, as arrays.

Every finite window is built from element-by-element operations in a fixed order (`_rolling`), never from a
running sum: a value then depends on its window alone, to the last bit, wherever the array begins. That makes
an incremental run equal a full one. TA-Lib's SMA, STDDEV and BBANDS carry running sums along and do not have
that property; here TA-Lib computes the recursive indicators. (A logarithm may differ in the last bit between
processor models, so "to the last bit" holds on one machine.)
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from include.mltrading.features import definitions as d
from include.mltrading.features._talib import load

talib = load()

Array = npt.NDArray[np.float64]


def compute(open: Array, high: Array, low: Array, close: Array, volume: Array) -> Array:
    """Compute the features of one symbol.

    open, high, low, close: prices, finite and > 0; volume: finite and >= 0. All 1-D float64 of the same
    length n (any n, 0 included), one value per bar, oldest first.

    Returns a C-contiguous float64 array of shape (n, features), its columns those of `definitions.COLUMNS`,
    NaN where a feature is not defined; never infinite, never filled. Row t depends on no bar after t.

    Raises ValueError that names the array, and the first index where a value is at fault.
    """
    o, hi, lo, c, v = _checked(open=open, high=high, low=low, close=close, volume=volume)
    rows = np.full((len(d.COLUMNS), len(c)), np.nan)
    out = dict(zip(d.COLUMNS, rows, strict=True))
    with np.errstate(all="ignore"):  # NaN marks what is undefined, and overflow is caught below
        _price(out, o, hi, lo, c)
        _averages(out, c)
        _volatility(out, o, hi, lo, c)
        _bollinger(out, c)
        _macd(out, c)
        _ranges(out, hi, lo, c)
        _rsi_and_adx(out, hi, lo, c)
        _cci_and_mfi(out, hi, lo, c, v)
    for feature in d.FEATURES:
        out[feature.column][: feature.first_bar] = np.nan
    rows[np.isinf(rows)] = np.nan
    return np.ascontiguousarray(rows.T)


def _checked(**arrays: Array) -> list[Array]:
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype != np.float64 or array.ndim != 1:
            raise ValueError(f"{name}: expected a 1-D float64 array")
    n = len(arrays["open"])
    for name, array in arrays.items():
        if len(array) != n:
            raise ValueError(f"{name}: {len(array)} bars, but open has {n}")
        good = np.isfinite(array) & (array >= 0 if name == "volume" else array > 0)
        if not good.all():
            index = int(np.argmin(good))
            bound = ">= 0" if name == "volume" else "> 0"
            raise ValueError(f"{name}[{index}] is {array[index]}: must be finite and {bound}")
    # One memory layout, so that numpy takes the same path, and gives the same bits, for every caller.
    return [np.ascontiguousarray(array) for array in arrays.values()]


# Windows. These take and return arrays of the full length, NaN where the window is not complete.


def _earlier(x: Array, bars: int) -> Array:
    """x as it was `bars` bars earlier."""
    out = np.empty_like(x)
    out[:bars] = np.nan
    out[bars:] = x[: max(len(x) - bars, 0)]
    return out


def _rolling(combine: np.ufunc, x: Array, window: int) -> Array:
    """`combine` (add, minimum or maximum) over the last `window` bars.

    The window is halved again and again: about 2 log2(window) operations on whole arrays, the rounding error
    of a pairwise sum, and the same order of operations at every place of the array.
    """
    if window == 1:
        return x
    half = _rolling(combine, x, window // 2)
    joined: Array = combine(half, _earlier(half, window // 2))
    if window % 2:
        joined = combine(joined, _earlier(x, window - 1))
    return joined


def _mean(x: Array, window: int) -> Array:
    return _rolling(np.add, x, window) / window


def _moments(x: Array, window: int) -> tuple[Array, Array]:
    """Mean, and sum of squared deviations from it, over the last `window` bars.

    Halved like `_rolling`. The parts are joined as in Chan, Golub & LeVeque 1983 (Algorithms for Computing
    the Sample Variance, The American Statistician 37(3)): no cancellation as in E[x^2] - E[x]^2, and exactly
    0 for equal values.
    """
    if window == 1:
        return x, np.zeros_like(x)
    size = window // 2
    mean, squares = _moments(x, size)
    older = _earlier(mean, size)
    delta = mean - older
    squares = squares + _earlier(squares, size) + delta * delta * (size / 2)
    mean = (mean + older) / 2
    if window % 2:
        delta = _earlier(x, window - 1) - mean
        squares = squares + delta * delta * ((window - 1) / window)
        mean = mean + delta / window
    return mean, squares


def _sample_deviation(x: Array, window: int) -> Array:
    _, squares = _moments(x, window)
    return np.sqrt(squares / (window - 1))


# The families. Each fills its columns of `out`; `compute` blanks what lies before a feature's first bar.


def _price(out: dict[str, Array], o: Array, hi: Array, lo: Array, c: Array) -> None:
    previous = _earlier(c, 1)
    returns = (c - previous) / previous  # c / c_1 - 1 without its cancellation
    out["returns"][:] = returns
    out["log_returns"][:] = np.log1p(returns)
    out["high_low_pct"][:] = (hi - lo) / c
    out["open_close_pct"][:] = (c - o) / o
    out["price_acceleration"][:] = returns - _earlier(returns, 1)
    out["returns_sign"][:] = np.sign(returns)


def _averages(out: dict[str, Array], c: Array) -> None:
    short, med, long = (_mean(c, window) for window in (d.SMA_SHORT, d.SMA_MED, d.SMA_LONG))
    out["sma_short"][:] = short
    out["sma_med"][:] = med
    out["sma_long"][:] = long
    out["price_to_sma_short"][:] = c / short
    out["price_to_sma_med"][:] = c / med
    out["price_to_sma_long"][:] = c / long
    out["sma_short_to_med"][:] = short / med
    out["sma_med_to_long"][:] = med / long


def _volatility(out: dict[str, Array], o: Array, hi: Array, lo: Array, c: Array) -> None:
    scale = math.sqrt(d.VOL_SCALE)
    returns = out["returns"]
    realized = _sample_deviation(returns, d.VOL_MED) * scale
    out["realized_vol_short"][:] = _sample_deviation(returns, d.VOL_SHORT) * scale
    out["realized_vol_med"][:] = realized
    out["realized_vol_long"][:] = _sample_deviation(returns, d.VOL_LONG) * scale
    out["vol_of_vol"][:] = _sample_deviation(realized, d.VOL_OF_VOL)
    variance = np.log(hi / lo) ** 2 / 2 - (2 * math.log(2) - 1) * np.log(c / o) ** 2
    out["gk_volatility"][:] = np.sqrt(d.VOL_SCALE * np.maximum(_mean(variance, d.GARMAN_KLASS), 0.0))


def _bollinger(out: dict[str, Array], c: Array) -> None:
    middle, squares = _moments(c, d.BOLLINGER)
    half_width = d.BOLLINGER_DEVIATIONS * np.sqrt(squares / d.BOLLINGER)
    out["bb_upper"][:] = middle + half_width
    out["bb_lower"][:] = middle - half_width
    # These are (c - lower) / (upper - lower) and (upper - lower) / middle without their cancellation.
    out["bb_squeeze"][:] = 2 * half_width / middle
    half_width[half_width <= d.NEGLIGIBLE * middle] = np.nan
    out["bb_position"][:] = (c - middle) / (2 * half_width) + 0.5


def _macd(out: dict[str, Array], c: Array) -> None:
    macd, signal, histogram = talib.MACD(c, d.MACD_FAST, d.MACD_SLOW, d.MACD_SIGNAL)
    out["macd"][:] = macd
    out["macd_signal"][:] = signal
    out["macd_histogram"][:] = histogram
    out["macd_normalized"][:] = macd / c


def _ranges(out: dict[str, Array], hi: Array, lo: Array, c: Array) -> None:
    """The indicators of a bar's place in the recent range."""
    atr = talib.ATR(hi, lo, c, d.WILDER)
    out["atr"][:] = atr
    out["atr_normalized"][:] = atr / c
    highest, lowest = _rolling(np.maximum, hi, d.RANGE), _rolling(np.minimum, lo, d.RANGE)
    width = highest - lowest
    width[width <= d.NEGLIGIBLE * highest] = np.nan
    stoch_k = _mean(100 * (c - lowest) / width, d.STOCH_SLOWING)
    out["williams_r"][:] = 100 * (c - highest) / width
    out["stoch_k"][:] = stoch_k
    out["stoch_d"][:] = _mean(stoch_k, d.STOCH_SMOOTHING)


def _rsi_and_adx(out: dict[str, Array], hi: Array, lo: Array, c: Array) -> None:
    """RSI and ADX by TA-Lib, without the values that it gives where they are 0/0."""
    rsi = talib.RSI(c, d.WILDER)
    change = np.abs(c - _earlier(c, 1)) / c
    rsi[_rolling(np.maximum, change, d.WILDER) <= d.NEGLIGIBLE] = np.nan
    out["rsi"][:] = rsi

    up, down = hi - _earlier(hi, 1), _earlier(lo, 1) - lo
    movement = np.minimum(np.maximum(up, down), np.abs(up - down)) / hi
    still = _rolling(np.maximum, movement, d.WILDER) <= d.NEGLIGIBLE
    # The ratio that ADX averages does not exist at the bars in `still`. It begins anew from the last of them:
    # TA-Lib would go on with what stood before the pause, however long ago, or with 0 where it saw nothing.
    starts = [0, *np.flatnonzero(still[:-1] & ~still[1:])]
    ends = [*(np.flatnonzero(~still[:-1] & still[1:]) + 1), len(c)]
    for start, end in zip(starts, ends, strict=False):  # a pause at the end leaves an end without a start
        out["adx"][start:end] = talib.ADX(hi[start:end], lo[start:end], c[start:end], d.WILDER)


def _cci_and_mfi(out: dict[str, Array], hi: Array, lo: Array, c: Array, v: Array) -> None:
    typical = (hi + lo + c) / 3
    middle = _mean(typical, d.CCI)
    deviation = np.abs(typical - middle)
    for bars in range(1, d.CCI):
        deviation += np.abs(_earlier(typical, bars) - middle)
    deviation /= d.CCI
    deviation[deviation <= d.NEGLIGIBLE * middle] = np.nan
    out["cci"][:] = (typical - middle) / (d.CCI_CONSTANT * deviation)

    change = (typical - _earlier(typical, 1)) / typical
    flow = typical * v
    rising = _rolling(np.add, flow * (change > d.NEGLIGIBLE), d.MFI)
    falling = _rolling(np.add, flow * (change < -d.NEGLIGIBLE), d.MFI)
    out["mfi"][:] = 100 * rising / (rising + falling)  # 0/0 is NaN
