"""Invented hourly bars: a pure function of (seed, symbol, bar start).

Each draw is a hash of its own place (seed, symbol, stream, day, bar, minute), so no value depends on the
window or the order in which bars are asked for, nor on the version of a random generator.

A session opens at the last close plus an overnight gap, pulled gently towards the symbol's own level, and
each bar's minutes are a Brownian bridge from its open to its close: high and low are that path's extremes,
and the running bar is the path up to the minute. An early close leaves no bar of its last half hour, but a
row at the close with its price and without volume.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

import exchange_calendars
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NEW_YORK = ZoneInfo("America/New_York")
FIRST_YEAR = 2015
BAR_SECONDS = 3600
BARS_A_SESSION = 7
MINUTES_A_BAR = 60

# Shares of a session's volume and of its volatility by hour: high at the open, low at noon, high at the
# close. The last bar is 30 minutes long.
_VOLUME_SHAPE = np.array([0.24, 0.14, 0.11, 0.10, 0.10, 0.13, 0.18])
_VOLATILITY_SHAPE = np.array([0.62, 0.40, 0.32, 0.28, 0.28, 0.33, 0.27])
_PULL = 0.002  # share of the distance to the symbol's level that a night takes back
_EARNINGS_EVERY = 63  # sessions


class Bar(NamedTuple):
    """An hourly bar: start (UTC), prices in US dollars a share, volume in shares."""

    timestamp: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float


class Session(NamedTuple):
    """A trading session of the New York Stock Exchange, with its open and close as Unix seconds."""

    day: date
    open: int
    close: int


class _Calendar(NamedTuple):
    """All sessions from FIRST_YEAR to the end of next year, as arrays of one row a session."""

    day: NDArray[np.int64]  # proleptic ordinal
    year: NDArray[np.int64]
    open: NDArray[np.int64]  # Unix seconds
    close: NDArray[np.int64]
    bars: NDArray[np.int64]  # hourly bars in the session


class _Walk(NamedTuple):
    """Logarithms of each bar's open and its return; shape (sessions, 7), and the symbol's fixed traits."""

    open: Floats
    change: Floats
    deviation: Floats
    daily_volume: float


class _Year(NamedTuple):
    """The final bars of one symbol and year in time order; shape (bars,) each."""

    start: NDArray[np.int64]
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: NDArray[np.int64]


@lru_cache(maxsize=1)
def _calendar() -> _Calendar:
    end = date(datetime.now(UTC).year + 1, 12, 31)
    xnys = exchange_calendars.get_calendar(
        "XNYS", start=date(FIRST_YEAR, 1, 1).isoformat(), end=end.isoformat()
    )
    schedule = xnys.schedule
    days = [stamp.date() for stamp in schedule.index]
    opens = np.array([int(stamp.timestamp()) for stamp in schedule["open"]], dtype=np.int64)
    closes = np.array([int(stamp.timestamp()) for stamp in schedule["close"]], dtype=np.int64)
    return _Calendar(
        day=np.array([day.toordinal() for day in days], dtype=np.int64),
        year=np.array([day.year for day in days], dtype=np.int64),
        open=opens,
        close=closes,
        bars=-(-(closes - opens) // BAR_SECONDS),  # on a half day the last one is the row of the close
    )


def sessions(start: datetime, end: datetime) -> list[Session]:
    """The sessions that are open at some instant of [start, end), in order."""
    calendar = _calendar()
    first = int(np.searchsorted(calendar.close, start.timestamp(), side="right"))
    last = int(np.searchsorted(calendar.open, end.timestamp(), side="left"))
    return [
        Session(date.fromordinal(int(calendar.day[row])), int(calendar.open[row]), int(calendar.close[row]))
        for row in range(first, last)
    ]


def bars(seed: int, symbol: str, start: datetime, end: datetime, *, now: datetime | None = None) -> list[Bar]:
    """The bars of `symbol` that start in [start, end), oldest first, prices rounded to float32.

    start, end, now: timezone-aware. Without `now` every bar is complete; with it nothing later exists, and
    the bar that contains `now` has the values it had at the full minute.
    """
    first, last = start.timestamp(), end.timestamp()
    found: list[Bar] = []
    for year in _years(first, last):
        table = _year(seed, symbol, year)
        low, high = np.searchsorted(table.start, [first, last], side="left")
        if now is not None:
            high = min(high, np.searchsorted(table.start, now.timestamp(), side="right"))
        starts = [datetime.fromtimestamp(start, UTC) for start in table.start[low:high].tolist()]
        columns = (table.open, table.high, table.low, table.close, table.volume.astype(np.float64))
        found.extend(map(Bar, starts, *(column[low:high].tolist() for column in columns)))
    if now is not None and found:
        found[-1] = _as_of(seed, symbol, found[-1], now)
    return found


def _years(first: float, last: float) -> Iterator[int]:
    """The years of the sessions in [first, last); New York's sessions never cross a year's end in UTC."""
    newest = int(_calendar().year[-1])
    begin = datetime.fromtimestamp(first, UTC).year
    end = datetime.fromtimestamp(last, UTC).year
    yield from range(max(begin, FIRST_YEAR), min(end, newest) + 1)


def _as_of(seed: int, symbol: str, bar: Bar, now: datetime) -> Bar:
    """`bar` as it looks at `now`: unchanged when it is over, cut to the minutes so far when it is running."""
    calendar = _calendar()
    start = int(bar.timestamp.timestamp())
    row = int(np.searchsorted(calendar.open, start, side="right")) - 1
    if start == calendar.close[row]:
        return bar
    number = (start - int(calendar.open[row])) // BAR_SECONDS
    length = int(_minutes(calendar, np.array([row]))[0, number])
    minute = int(now.timestamp() - start) // 60
    if minute >= length:
        return bar
    path = _paths(seed, symbol, np.array([row]))[0, number, : minute + 1]
    prices = np.exp(path).astype(np.float32).tolist()
    volume = float(int(bar.volume) * (minute + 1) // (length + 1))
    return Bar(bar.timestamp, prices[0], max(prices), min(prices), prices[-1], volume)


@lru_cache(maxsize=4096)
def _year(seed: int, symbol: str, year: int) -> _Year:
    calendar = _calendar()
    rows = np.flatnonzero(calendar.year == year)
    walk = _walk(seed, symbol)
    path = _paths(seed, symbol, rows)
    exists = np.arange(BARS_A_SESSION) < calendar.bars[rows, None]
    starts = calendar.open[rows, None] + BAR_SECONDS * np.arange(BARS_A_SESSION)
    noise = np.exp(0.3 * _normals(seed, symbol, "volume", _places(calendar, rows)))
    length = _minutes(calendar, rows).sum(axis=1, keepdims=True) / 390
    volume = np.rint(walk.daily_volume * length * _VOLUME_SHAPE * noise).astype(np.int64)

    early = np.flatnonzero(calendar.bars[rows] < BARS_A_SESSION)
    last = calendar.bars[rows[early]] - 1
    starts[early, last] = calendar.close[rows[early]]
    path[early, last] = path[early, last, -1:]
    volume[early, last] = 0

    def price(logarithm: Floats) -> Floats:
        return np.exp(logarithm[exists]).astype(np.float32).astype(np.float64)

    return _Year(
        start=starts[exists],
        open=price(path[:, :, 0]),
        high=price(path.max(axis=2)),
        low=price(path.min(axis=2)),
        close=price(path[:, :, -1]),
        volume=volume[exists],
    )


@lru_cache(maxsize=256)
def _walk(seed: int, symbol: str) -> _Walk:
    """The symbol's levels at every bar since FIRST_YEAR."""
    calendar = _calendar()
    rows = np.arange(len(calendar.day))
    places = _places(calendar, rows)
    level, volatility, volume = _uniforms(seed, symbol, "traits", np.arange(3, dtype=np.uint64))
    base = float(np.log(20) + level * np.log(25))  # 20 to 500 dollars
    daily = 0.010 + 0.015 * float(volatility)  # standard deviation of a session's return
    mood = np.exp(0.3 * _normals(seed, symbol, "mood", calendar.day[:, None].astype(np.uint64)))
    deviation = daily * mood * _VOLATILITY_SHAPE
    exists = np.arange(BARS_A_SESSION) < calendar.bars[:, None]
    change = np.where(exists, deviation * _normals(seed, symbol, "change", places), 0.0)
    jump = np.where(exists, 0.0002 * _normals(seed, symbol, "jump", places), 0.0)
    night = 0.5 * daily * _normals(seed, symbol, "night", calendar.day.astype(np.uint64))
    first_report = int(level * _EARNINGS_EVERY)
    night[first_report::_EARNINGS_EVERY] *= 4.0
    jump[:, 0] = 0.0

    within = np.cumsum(jump + change, axis=1)  # each bar's close relative to the session's open
    opens = np.empty(len(rows))
    close = base
    for row, (gap, total) in enumerate(zip(night.tolist(), within[:, -1].tolist(), strict=True)):
        opens[row] = close + gap - _PULL * (close - base)
        close = opens[row] + total
    return _Walk(
        open=opens[:, None] + within - change,
        change=change,
        deviation=deviation,
        daily_volume=float(np.exp(np.log(1e6) + volume * np.log(60))),  # 1 to 60 million shares
    )


def _paths(seed: int, symbol: str, rows: NDArray[np.intp]) -> Floats:
    """Logarithm of the price at each minute; shape (len(rows), 7, 61), constant after a short bar's end."""
    calendar = _calendar()
    walk = _walk(seed, symbol)
    length = _minutes(calendar, rows)[:, :, None]
    minute = np.arange(1, MINUTES_A_BAR + 1)
    places = (_places(calendar, rows)[:, :, None] << np.uint64(6)) + minute.astype(np.uint64)
    steps = np.where(minute <= length, _normals(seed, symbol, "minute", places), 0.0)
    total = np.cumsum(steps, axis=2)
    share = np.minimum(minute / length, 1.0)
    bridge = (total - share * total[:, :, -1:]) / np.sqrt(length)
    path = np.empty((len(rows), BARS_A_SESSION, MINUTES_A_BAR + 1))
    path[:, :, 0] = walk.open[rows]
    path[:, :, 1:] = (
        path[:, :, :1] + share * walk.change[rows, :, None] + walk.deviation[rows, :, None] * bridge
    )
    return path


def _minutes(calendar: _Calendar, rows: NDArray[np.intp]) -> NDArray[np.int64]:
    """Length of each bar in minutes; shape (len(rows), 7), 1 where a short session has no such bar."""
    start = calendar.open[rows, None] + BAR_SECONDS * np.arange(BARS_A_SESSION)
    return np.asarray(np.clip((calendar.close[rows, None] - start) // 60, 1, MINUTES_A_BAR))


def _places(calendar: _Calendar, rows: NDArray[np.intp]) -> NDArray[np.uint64]:
    """A number for each (day, bar); shape (len(rows), 7)."""
    return (calendar.day[rows, None] * 8 + np.arange(BARS_A_SESSION)).astype(np.uint64)


def _normals(seed: int, symbol: str, stream: str, places: NDArray[np.uint64]) -> Floats:
    """Standard normal draws at `places`, by the Box-Muller transform."""
    first = _uniforms(seed, symbol, stream, places << np.uint64(1))
    second = _uniforms(seed, symbol, stream, (places << np.uint64(1)) + np.uint64(1))
    return np.asarray(np.sqrt(-2.0 * np.log(first)) * np.cos(2.0 * np.pi * second))


def _uniforms(seed: int, symbol: str, stream: str, places: NDArray[np.uint64]) -> Floats:
    """Uniform draws in (0, 1) at `places`, by SplitMix64 (Steele, Lea and Flood, 2014)."""
    digest = hashlib.blake2b(f"{seed}|{symbol}|{stream}".encode(), digest_size=8).digest()
    z = places * np.uint64(0x9E3779B97F4A7C15) + np.uint64(int.from_bytes(digest, "big"))
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.asarray(((z >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)
