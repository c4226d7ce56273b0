"""What can be made to go wrong, for one symbol or all, for the next N answers or until told otherwise.

A kind of fault is one function: it changes the `Series` before it is written, or the `Reply` before it is
sent. The keyword arguments of the function, all with defaults, are the options that the kind takes.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from threading import Lock
from typing import Any

import numpy as np

from include.market_simulator.prices import BAR_SECONDS, NEW_YORK, Bar, sessions
from include.market_simulator.reply import Reply, status_reply
from include.market_simulator.series import Series

SeriesFault = Callable[..., Series]
ReplyFault = Callable[..., Reply]
REQUESTS = ("chart", "probe", "cookie", "crumb", "any")


class ControlError(ValueError):
    """A control request that cannot be obeyed; its text is one line for whoever sent it."""


def empty(series: Series) -> Series:
    """No bars."""
    return replace(series, bars=())


def live_row(series: Series, *, instead: bool = False) -> Series:
    """While a session is open, a last row off the grid at the instant of the request.

    It repeats the last price without volume; with `instead` it stands in the running bar's place. Like
    Yahoo's it comes even where the window ends earlier.
    """
    is_open = any(
        s.open <= series.now.timestamp() < s.close for s in sessions(series.now, series.now + _SECOND)
    )
    if not is_open or not series.bars:
        return series
    last = series.bars[-1]
    at = series.now.replace(microsecond=0)
    row = Bar(at, last.close, last.close, last.close, last.close, 0.0)
    if instead and last.timestamp + timedelta(seconds=BAR_SECONDS) > series.now:
        return replace(series, bars=(*series.bars[:-1], last._replace(timestamp=at)))
    return replace(series, bars=(*series.bars, row))


def nan_rows(series: Series, *, fields: str = "open high low close volume", every: int = 1) -> Series:
    """Each `every`-th bar without the values named in `fields`, which a chart shows as null."""
    unknown = set(fields.split()) - set(Bar._fields[1:])
    if unknown or every < 1:
        raise ControlError(
            f"fields is {fields!r}, every is {every}: give names of {Bar._fields[1:]}, and 1 or more"
        )
    gap = dict.fromkeys(fields.split(), math.nan)
    changed = (
        Bar(**(bar._asdict() | gap)) if number % every == 0 else bar
        for number, bar in enumerate(series.bars, start=1)
    )
    return replace(series, bars=tuple(changed))


def split(
    series: Series,
    *,
    ex_date: str = "",
    ratio: float = 1.0,
    restated: bool = True,
    announced: bool = True,
    early: bool = False,
    times: int = 1,
    except_day: str = "",
) -> Series:
    """A split on `ex_date`, from whose open on the symbol trades on the new basis.

    restated: earlier bars are on the new basis too, with `early` already before that open; so many `times`
    over, and not those of `except_day`. announced: the event is told once it has happened.
    """
    day = _day(ex_date)
    if ratio <= 0:
        raise ControlError(f"ratio is {ratio}: give the new shares for one old, above 0")
    midnight = datetime.combine(day, datetime.min.time(), NEW_YORK)
    happened = bool(sessions(midnight, series.now))
    if not (happened or early):
        return series
    left_out = _day(except_day) if except_day else None

    def seen(bar: Bar) -> Bar:
        if bar.timestamp >= midnight:
            return _rebased(bar, ratio)
        if not (restated or early) or _date(bar) == left_out:
            return bar
        return _rebased(bar, ratio**times)

    bars = tuple(seen(bar) for bar in series.bars)
    splits = (*series.splits, (day, ratio)) if happened and announced else series.splits
    return replace(series, bars=bars, splits=splits)


def another_company(series: Series, *, since: str = "", factor: float = 1.0, told: bool = True) -> Series:
    """The symbol is another company's, which trades since the date `since`; bars of before it are gone.

    factor: times its prices, which move the other way. told: the chart says since when, else nothing.
    """
    midnight = datetime.combine(_day(since), datetime.min.time(), NEW_YORK)
    first = next(iter(sessions(midnight, midnight + timedelta(days=10))), None)
    if first is None or first.open > series.now.timestamp():
        return series
    if factor <= 0:
        raise ControlError(f"factor is {factor}: give one above 0")
    bars = tuple(_mirrored(bar, factor) for bar in series.bars if bar.timestamp >= midnight)
    opened = datetime.fromtimestamp(first.open, NEW_YORK)
    return replace(series, bars=bars, splits=(), dividends=(), first_trade=opened if told else None)


def first_trade(series: Series, *, day: str = "") -> Series:
    """The chart says that the symbol trades since midnight of `day`, whatever it serves; "" = nothing."""
    if not day:
        return replace(series, first_trade=None)
    return replace(series, first_trade=datetime.combine(_day(day), datetime.min.time(), NEW_YORK))


def gaps(series: Series, *, every: int = 5) -> Series:
    """Each `every`-th bar is not there."""
    return replace(series, bars=tuple(bar for hit, bar in _each(series, every) if not hit))


def missing_day(series: Series, *, day: str = "") -> Series:
    """No bar of one New York date."""
    left_out = _day(day)
    return replace(series, bars=tuple(bar for bar in series.bars if _date(bar) != left_out))


def duplicates(series: Series, *, every: int = 5, factor: float = 1.0) -> Series:
    """Each `every`-th bar comes twice, the second time with prices times `factor`."""
    bars: list[Bar] = []
    for hit, bar in _each(series, every):
        bars += [bar, _times(bar, factor)] if hit else [bar]
    return replace(series, bars=tuple(bars))


def disorder(series: Series) -> Series:
    """The newest bar first."""
    return replace(series, bars=series.bars[::-1])


def off_grid(series: Series, *, every: int = 5, seconds: int = 5) -> Series:
    """Behind each `every`-th bar a row that repeats its close, so many seconds after its start."""
    bars: list[Bar] = []
    for hit, bar in _each(series, every):
        at = bar.timestamp + timedelta(seconds=seconds)
        bars += [bar, Bar(at, bar.close, bar.close, bar.close, bar.close, 0.0)] if hit else [bar]
    return replace(series, bars=tuple(bars))


def high_below_low(series: Series, *, every: int = 5) -> Series:
    """Each `every`-th bar has high and low exchanged."""
    return replace(
        series,
        bars=tuple(
            bar._replace(high=bar.low, low=bar.high) if hit else bar for hit, bar in _each(series, every)
        ),
    )


def times(series: Series, *, factor: float = 100.0, start: str = "", hours: float = 0.0) -> Series:
    """Prices times `factor`, of the bars that start in the `hours` from `start` on; without it, of all."""
    if not start:
        return replace(series, bars=tuple(_times(bar, factor) for bar in series.bars))
    first = _moment(start)
    last = first + timedelta(hours=hours)
    return replace(
        series,
        bars=tuple(_times(bar, factor) if first <= bar.timestamp < last else bar for bar in series.bars),
    )


def revision(series: Series, *, start: str = "", factor: float = 1.01) -> Series:
    """The bar that starts at `start` closes at `factor` times its close."""
    at = _moment(start)

    def revised(bar: Bar) -> Bar:
        close = float(np.float32(bar.close * factor))
        return bar._replace(close=close, high=max(bar.high, close), low=min(bar.low, close))

    return replace(series, bars=tuple(revised(bar) if bar.timestamp == at else bar for bar in series.bars))


def wrong_zone(series: Series, *, hours: int = 1) -> Series:
    """Every bar so many hours late."""
    shift = timedelta(hours=hours)
    return replace(series, bars=tuple(bar._replace(timestamp=bar.timestamp + shift) for bar in series.bars))


def dividend(series: Series, *, ex_date: str = "", amount: float = 0.0) -> Series:
    """A cash dividend on `ex_date`; the bars stay as they are."""
    return replace(series, dividends=(*series.dividends, (_day(ex_date), amount)))


def status(reply: Reply, *, status: int = 500, retry_after: float = -1.0) -> Reply:
    """A bare HTTP status; `retry_after` seconds where it is not negative."""
    if not 400 <= status <= 599:
        raise ControlError(f"status is {status}: give one from 400 to 599")
    return status_reply(status, retry_after if retry_after >= 0 else None)


def html(reply: Reply) -> Reply:
    """A page for people, with status 200."""
    page = b"<!DOCTYPE html>\n<html><head><title>Yahoo</title></head><body>Sorry</body></html>\n"
    return replace(reply, status=200, body=page, content_type="text/html;charset=utf-8")


def cut(reply: Reply) -> Reply:
    """The first half of the document, as if it were all."""
    return replace(reply, body=reply.body[: len(reply.body) // 2])


def reset(reply: Reply) -> Reply:
    """A TCP reset in place of an answer."""
    return replace(reply, reset=True)


def slow(reply: Reply, *, seconds: float = 1.0) -> Reply:
    """The answer, `seconds` late."""
    if not 0 <= seconds <= 3600:
        raise ControlError(f"seconds is {seconds}: give a number from 0 to 3600")
    return replace(reply, delay=reply.delay + seconds)


SERIES_FAULTS: dict[str, SeriesFault] = {
    f.__name__: f
    for f in (
        empty, live_row, nan_rows, gaps, missing_day, duplicates, disorder, off_grid, high_below_low, times,
        revision, wrong_zone, split, dividend, another_company, first_trade,
    )
}  # fmt: skip
REPLY_FAULTS: dict[str, ReplyFault] = {f.__name__: f for f in (status, html, cut, reset, slow)}

_SECOND = timedelta(seconds=1)


def _each(series: Series, every: int) -> list[tuple[bool, Bar]]:
    """The bars, each with whether it is an `every`-th one.

    By its own hour, so that a bar is hit or not whatever window it is asked for in.
    """
    if every < 1:
        raise ControlError(f"every is {every}: give 1 or more")
    return [(int(bar.timestamp.timestamp()) // BAR_SECONDS % every == 0, bar) for bar in series.bars]


def _date(bar: Bar) -> date:
    return bar.timestamp.astimezone(NEW_YORK).date()


def _times(bar: Bar, factor: float) -> Bar:
    if factor <= 0:
        raise ControlError(f"factor is {factor}: give one above 0")
    prices = [float(np.float32(price * factor)) for price in bar[1:5]]
    return Bar(bar.timestamp, prices[0], prices[1], prices[2], prices[3], bar.volume)


def _mirrored(bar: Bar, factor: float) -> Bar:
    prices = [
        float(np.float32(factor * 10_000 / price)) for price in (bar.open, bar.low, bar.high, bar.close)
    ]
    return Bar(bar.timestamp, prices[0], prices[1], prices[2], prices[3], bar.volume)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ControlError(f"start is {text!r}: give an ISO instant with its time zone")
    return moment


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ControlError(f"the date is {text!r}: give one as YYYY-MM-DD") from None


def _rebased(bar: Bar, ratio: float) -> Bar:
    prices = [float(np.float32(price / ratio)) for price in bar[1:5]]
    return Bar(bar.timestamp, prices[0], prices[1], prices[2], prices[3], float(round(bar.volume * ratio)))


@dataclass
class Fault:
    """One active fault. symbol None: every symbol. remaining None: until it is cleared."""

    kind: str
    requests: str = "chart"
    symbol: str | None = None
    remaining: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


class FaultRegistry:
    """The active faults, applied in the order in which they were added; safe between threads."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = Lock()

    def add(
        self, kind: str, *, symbol: str | None, count: int | None, requests: str, options: dict[str, Any]
    ) -> None:
        """Activate a fault; ControlError names what is wrong with it."""
        function = SERIES_FAULTS.get(kind) or REPLY_FAULTS.get(kind)
        if function is None:
            raise ControlError(f"no fault {kind!r}: choose from {', '.join([*SERIES_FAULTS, *REPLY_FAULTS])}")
        if requests not in REQUESTS:
            raise ControlError(f"requests is {requests!r}: choose from {', '.join(REQUESTS)}")
        if symbol is not None and not isinstance(symbol, str):
            raise ControlError(f"symbol is {symbol!r}: give a text")
        if count is not None and (type(count) is not int or count < 1):
            raise ControlError(f"count is {count!r}: give a whole number above 0")
        fault = Fault(
            kind, requests, symbol.upper() if symbol else None, count, _checked(kind, function, options)
        )
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Remove every fault."""
        with self._lock:
            self._faults.clear()

    def take(self, request: str, symbol: str | None) -> list[Fault]:
        """The faults that hit this request, each counted down by one."""
        with self._lock:
            hit = [
                fault
                for fault in self._faults
                if fault.requests in (request, "any") and fault.symbol in (None, symbol)
            ]
            for fault in hit:
                if fault.remaining is not None:
                    fault.remaining -= 1
            self._faults = [fault for fault in self._faults if fault.remaining != 0]
            return hit


def change_series(series: Series, faults: list[Fault]) -> Series:
    """`series` after all the faults that concern it."""
    for fault in faults:
        if fault.kind in SERIES_FAULTS:
            series = SERIES_FAULTS[fault.kind](series, **fault.options)
    return series


def change_reply(reply: Reply, faults: list[Fault]) -> Reply:
    """`reply` after all the faults that concern it."""
    for fault in faults:
        if fault.kind in REPLY_FAULTS:
            reply = REPLY_FAULTS[fault.kind](reply, **fault.options)
    return reply


def _checked(kind: str, function: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """`options` as the kind takes them, tried out once; ControlError where they do not fit."""
    parameters = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    checked = {}
    for name, value in options.items():
        if name not in parameters:
            known = ", ".join(parameters) or "none"
            raise ControlError(f"fault {kind!r} has no option {name!r}: its options are {known}")
        wanted = type(parameters[name])
        if wanted is float and type(value) is int:
            value = float(value)
        if type(value) is not wanted:
            raise ControlError(f"{name} is {value!r}: fault {kind!r} wants {wanted.__name__}")
        checked[name] = value
    now = datetime.fromisoformat("2025-01-02T12:00:00+00:00")
    subject = Series("A", now, now, now, ()) if kind in SERIES_FAULTS else Reply(200, b"")
    function(subject, **checked)
    return checked
