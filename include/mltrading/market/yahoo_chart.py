"""Reading Yahoo's v8 chart document: what it says about itself, its bars and its events."""

from __future__ import annotations

import json
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from include.mltrading.market.bars import Bar
from include.mltrading.market.calendar import NEW_YORK, new_york_date
from include.mltrading.market.yahoo import Dividend, Split

# What reading a document that is not as it should be may raise. A MemoryError is none of its faults.
UNREADABLE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    OSError,
    RecursionError,
)
# Trusts, preferred and depositary shares, closed-end funds, units and warrants are EQUITY too. No shares are
# MUTUALFUND, INDEX, FUTURE, CURRENCY, CRYPTOCURRENCY, OPTION, ECNQUOTE and MONEYMARKET.
_INSTRUMENTS = ("EQUITY", "ETF")
_GRANULARITIES = ("1h", "60m")
# Beyond any split's ratio and any dividend; several of one day still have a finite product and sum.
_LEAST, _MOST = 1e-9, 1e9
_COLUMNS = ("open", "high", "low", "close", "volume")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chart:
    """What one document says.

    reason: Yahoo's words where it refused, else None. misfit: how it differs from hourly bars of the US share
    that was asked for, None where it does not. bars: in the vendor's own order, NaN for null. splits and
    dividends: those that can be read, one a day; events_lost: there are others. first_trade: UTC, None where
    it does not say.
    """

    reason: str | None = None
    misfit: str | None = None
    bars: tuple[Bar, ...] = ()
    splits: tuple[Split, ...] = ()
    dividends: tuple[Dividend, ...] = ()
    first_trade: datetime | None = None
    events_lost: bool = False


def read_chart(body: bytes, asked: str) -> Chart:
    """The chart of `asked`, a symbol in Yahoo's spelling; raises one of UNREADABLE.

    An event that cannot be read is lost with a log line, never the bars beside it.
    """
    chart = json.loads(body)["chart"]
    if chart.get("error"):
        return Chart(reason=str(chart["error"]["description"]))
    if chart["result"] is None:
        raise ValueError("it has neither a result nor an error")
    if not chart["result"]:
        return Chart()
    result = chart["result"][0]
    quotes = result["indicators"]["quote"]
    if not result.get("timestamp") and not (quotes and quotes[0]):
        return Chart()
    meta = result["meta"]
    stamps = [_instant(value) for value in result["timestamp"]]
    columns = ([_number(value) for value in quotes[0][name]] for name in _COLUMNS)
    bars = tuple(Bar(*values) for values in zip(stamps, *columns, strict=True))
    events = result.get("events") or {}
    ratios, splits_lost = _events(asked, events, "splits", _ratio)
    amounts, dividends_lost = _events(asked, events, "dividends", _amount)
    return Chart(
        misfit=_misfit(meta, asked),
        bars=bars,
        # The same split told twice is one.
        splits=tuple(Split(day, math.prod(set(values))) for day, values in ratios),
        dividends=tuple(Dividend(day, math.fsum(values)) for day, values in amounts),
        first_trade=_first_trade(meta),
        events_lost=splits_lost or dividends_lost,
    )


def _misfit(meta: Mapping[str, Any], asked: str) -> str | None:
    """How `meta` differs from what was asked for; None where it does not.

    Whatever it does not say cannot be trusted to be right: without granularity a day's bar would be stored as
    the first hour's. Every recorded reply with bars says all five. Raises ValueError where one is missing.
    """
    wanted: dict[str, tuple[str, ...]] = {
        "symbol": (asked,),
        "instrumentType": _INSTRUMENTS,
        "currency": ("USD",),
        "exchangeTimezoneName": (NEW_YORK.key,),
        "dataGranularity": _GRANULARITIES,
    }
    missing = [name for name in wanted if meta.get(name) is None]
    if missing:
        raise ValueError(f"its meta has no {', '.join(missing)}")
    return (
        " and ".join(
            f"{name} {str(meta[name])[:40]!r}, not {' or '.join(values)}"
            for name, values in wanted.items()
            if meta[name] not in values
        )
        or None
    )


def _first_trade(meta: Mapping[str, Any]) -> datetime | None:
    """When the symbol was first traded, by Yahoo's account; a new share has none yet."""
    try:
        return _instant(meta["firstTradeDate"])
    except UNREADABLE:
        return None


def _events(
    symbol: str, events: Any, kind: str, value: Callable[[Mapping[str, Any]], float]
) -> tuple[list[tuple[date, list[float]]], bool]:
    """The events of one kind, New York date -> values; and whether there are others that cannot be read."""
    found: defaultdict[date, list[float]] = defaultdict(list)
    try:
        told = list((events.get(kind) or {}).values())
    except AttributeError:
        log.warning("%s: its %s cannot be read and are left out", symbol, kind)
        return [], True
    lost = False
    for event in told:
        try:
            day, amount = new_york_date(_instant(event["date"])), value(event)
            found[day].append(amount)
        except UNREADABLE as error:
            lost = True
            log.warning(
                "%s: one of its %s cannot be read and is left out (%s: %.100s)",
                symbol, kind, type(error).__name__, error,
            )  # fmt: skip
    return sorted(found.items()), lost


def _ratio(event: Mapping[str, Any]) -> float:
    return _positive(_number(event["numerator"]) / _number(event["denominator"]))


def _amount(event: Mapping[str, Any]) -> float:
    if event.get("currency") not in (None, "", "USD"):
        raise ValueError("not in US dollars")
    return _positive(_number(event["amount"]))


def _positive(value: float) -> float:
    if not _LEAST <= value <= _MOST:
        raise ValueError(f"{value} is not a number from {_LEAST:g} to {_MOST:g}")
    return value


def _number(value: object) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{type(value).__name__} in place of a number")
    return float(value)


def _instant(value: object) -> datetime:
    return datetime.fromtimestamp(_number(value), UTC)
