"""What can be made to go wrong, for one symbol or all, for the next N answers or until told otherwise.

A kind of fault is one function: it changes the `Series` before it is written, or the `Reply` before it is
sent. The keyword arguments of the function are the options that the kind takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Annotated, Any

import numpy as np
from pydantic import AwareDatetime, Field, PositiveFloat, PositiveInt, validate_call

from include.market_simulator.messages import Reply, Series, status_reply
from include.market_simulator.prices import BAR_SECONDS, NEW_YORK, Bar, sessions

Seconds = Annotated[float, Field(ge=0, le=3600)]
Change = Callable[[Bar], Bar]


class ControlError(ValueError):
    """A control request that cannot be obeyed; its text is one line for whoever sent it."""


# Bars ---------------------------------------------------------------------------------------------------


def empty(series: Series) -> Series:
    """No bars."""
    return replace(series, bars=())


def live_row(series: Series, *, instead: bool = False) -> Series:
    """While a session is open, a last row off the grid at the instant of the request.

    It repeats the last price without volume; with `instead` it stands in the running bar's place. Like
    Yahoo's it comes even where the window ends earlier.
    """
    open_now = sessions(series.now, series.now + timedelta(seconds=1))
    if not open_now or open_now[0].open > series.now.timestamp() or not series.bars:
        return series
    last, at = series.bars[-1], series.now.replace(microsecond=0)
    if instead and last.timestamp + timedelta(seconds=BAR_SECONDS) > series.now:
        return replace(series, bars=(*series.bars[:-1], last._replace(timestamp=at)))
    return replace(series, bars=(*series.bars, _row(last, at)))


def nan_rows(series: Series, *, fields: str = "open high low close volume", every: PositiveInt = 1) -> Series:
    """Each `every`-th bar without the values named in `fields`, which a chart shows as null."""
    if unknown := set(fields.split()) - set(Bar._fields[1:]):
        raise ControlError(f"fields has {', '.join(unknown)}: give names of {Bar._fields[1:]}")
    gap: dict[str, Any] = dict.fromkeys(fields.split(), math.nan)
    bars = list(series.bars)
    bars[every - 1 :: every] = [bar._replace(**gap) for bar in bars[every - 1 :: every]]
    return replace(series, bars=tuple(bars))


def gaps(series: Series, *, every: PositiveInt = 5) -> Series:
    """Each `every`-th bar is not there."""
    return _each(series, every, lambda bar: [])


def missing_day(series: Series, *, day: date) -> Series:
    """No bar of one New York date."""
    return replace(series, bars=tuple(bar for bar in series.bars if _date(bar) != day))


def duplicates(series: Series, *, every: PositiveInt = 5, factor: PositiveFloat = 1.0) -> Series:
    """Each `every`-th bar comes twice, the second time with prices times `factor`."""
    return _each(series, every, lambda bar: [bar, _times(bar, factor)])


def disorder(series: Series) -> Series:
    """The newest bar first."""
    return replace(series, bars=series.bars[::-1])


def off_grid(series: Series, *, every: PositiveInt = 5, seconds: int = 5) -> Series:
    """Behind each `every`-th bar a row that repeats its close, so many seconds after its start."""
    late = timedelta(seconds=seconds)
    return _each(series, every, lambda bar: [bar, _row(bar, bar.timestamp + late)])


def high_below_low(series: Series, *, every: PositiveInt = 5) -> Series:
    """Each `every`-th bar has high and low exchanged."""
    return _each(series, every, lambda bar: [bar._replace(high=bar.low, low=bar.high)])


def times(
    series: Series, *, factor: PositiveFloat = 100.0, start: AwareDatetime | None = None, hours: float = 0.0
) -> Series:
    """Prices times `factor`, of the bars that start in the `hours` from `start` on; without it, of all."""

    def seen(bar: Bar) -> Bar:
        hit = start is None or start <= bar.timestamp < start + timedelta(hours=hours)
        return _times(bar, factor) if hit else bar

    return _all(series, seen)


def revision(series: Series, *, start: AwareDatetime, factor: PositiveFloat = 1.01) -> Series:
    """The bar that starts at `start` closes at `factor` times its close."""

    def seen(bar: Bar) -> Bar:
        if bar.timestamp != start:
            return bar
        close = float(np.float32(bar.close * factor))
        return bar._replace(close=close, high=max(bar.high, close), low=min(bar.low, close))

    return _all(series, seen)


def wrong_zone(series: Series, *, hours: int = 1) -> Series:
    """Every bar so many hours late."""
    return _all(series, lambda bar: bar._replace(timestamp=bar.timestamp + timedelta(hours=hours)))


# Events and companies -----------------------------------------------------------------------------------


def split(
    series: Series,
    *,
    ex_date: date,
    ratio: PositiveFloat,
    restated: bool = True,
    announced: bool = True,
    early: bool = False,
    times: int = 1,
    except_day: date | None = None,
) -> Series:
    """A split on `ex_date`, from whose open on the symbol trades on the new basis.

    ratio: new shares for one old. restated: earlier bars are on the new basis too, with `early` already
    before that open; so many `times` over, and not those of `except_day`. announced: the event is told once
    it has happened.
    """
    midnight = _midnight(ex_date)
    happened = bool(sessions(midnight, series.now))
    if not (happened or early):
        return series

    def seen(bar: Bar) -> Bar:
        if bar.timestamp >= midnight:
            return _rebased(bar, ratio)
        if not (restated or early) or _date(bar) == except_day:
            return bar
        return _rebased(bar, ratio**times)

    splits = (*series.splits, (ex_date, ratio)) if happened and announced else series.splits
    return replace(_all(series, seen), splits=splits)


def dividend(series: Series, *, ex_date: date, amount: float) -> Series:
    """A cash dividend on `ex_date`; the bars stay as they are."""
    return replace(series, dividends=(*series.dividends, (ex_date, amount)))


def another_company(series: Series, *, since: date, factor: PositiveFloat = 1.0, told: bool = True) -> Series:
    """The symbol is another company's, which trades since the date `since`; bars of before it are gone.

    factor: times its prices, which move the other way. told: the chart says since when, else nothing.
    """
    midnight = _midnight(since)
    first = next(iter(sessions(midnight, midnight + timedelta(days=10))), None)
    if first is None or first.open > series.now.timestamp():
        return series
    bars = tuple(_mirrored(bar, factor) for bar in series.bars if bar.timestamp >= midnight)
    opened = datetime.fromtimestamp(first.open, NEW_YORK)
    return replace(series, bars=bars, splits=(), dividends=(), first_trade=opened if told else None)


def first_trade(series: Series, *, day: date | None = None) -> Series:
    """The chart says that the symbol trades since midnight of `day`, whatever it serves; or nothing."""
    return replace(series, first_trade=_midnight(day) if day else None)


# Replies ------------------------------------------------------------------------------------------------


def status(
    reply: Reply, *, status: Annotated[int, Field(ge=400, le=599)] = 500, retry_after: float | None = None
) -> Reply:
    """A bare HTTP status; with a header Retry-After of so many seconds."""
    return status_reply(status, retry_after)


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


def slow(reply: Reply, *, seconds: Seconds = 1.0) -> Reply:
    """The answer, `seconds` late."""
    return replace(reply, delay=reply.delay + seconds)


SERIES_FAULTS: dict[str, Callable[..., Series]] = {
    f.__name__: validate_call(f)
    for f in (
        empty, live_row, nan_rows, gaps, missing_day, duplicates, disorder, off_grid, high_below_low, times,
        revision, wrong_zone, split, dividend, another_company, first_trade,
    )
}  # fmt: skip
REPLY_FAULTS: dict[str, Callable[..., Reply]] = {
    f.__name__: validate_call(f) for f in (status, html, cut, reset, slow)
}


def _all(series: Series, change: Change) -> Series:
    return replace(series, bars=tuple(change(bar) for bar in series.bars))


def _each(series: Series, every: int, change: Callable[[Bar], list[Bar]]) -> Series:
    """What becomes of each `every`-th bar: by its own hour, whatever window it is asked for in."""
    bars: list[Bar] = []
    for bar in series.bars:
        hit = int(bar.timestamp.timestamp()) // BAR_SECONDS % every == 0
        bars += change(bar) if hit else [bar]
    return replace(series, bars=tuple(bars))


def _date(bar: Bar) -> date:
    return bar.timestamp.astimezone(NEW_YORK).date()


def _midnight(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time(), NEW_YORK)


def _row(bar: Bar, at: datetime) -> Bar:
    return Bar(at, bar.close, bar.close, bar.close, bar.close, 0.0)


def _priced(bar: Bar, *prices: float) -> Bar:
    first, high, low, last = (float(np.float32(price)) for price in prices)
    return bar._replace(open=first, high=high, low=low, close=last)


def _times(bar: Bar, factor: float) -> Bar:
    return _priced(bar, *(price * factor for price in bar[1:5]))


def _mirrored(bar: Bar, factor: float) -> Bar:
    prices = (bar.open, bar.low, bar.high, bar.close)
    return _priced(bar, *(factor * 10_000 / price for price in prices))


def _rebased(bar: Bar, ratio: float) -> Bar:
    prices = (price / ratio for price in bar[1:5])
    return _priced(bar, *prices)._replace(volume=float(round(bar.volume * ratio)))
