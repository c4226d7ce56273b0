"""Yahoo's v8 chart document: reading the query, writing the answer.

Shapes as real replies show them and as yfinance reads them: `timestamp` holds each bar's start in Unix
seconds, an empty window has no `timestamp` and an empty quote, events hang on their session's open.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import groupby

from include.market_simulator.prices import FIRST_YEAR, NEW_YORK, Bar, sessions
from include.market_simulator.reply import Reply, chart_error, json_reply
from include.market_simulator.series import Series

HOURLY_DAYS = 730  # how far back Yahoo serves hourly bars
INTERVALS = {"60m": "1h", "1h": "1h", "1d": "1d"}
_DAYS_OF_RANGE = {"1mo": 31, "3mo": 92, "6mo": 183, "1y": 365, "2y": 730, "5y": 1826, "10y": 3652}
_SESSIONS_OF_RANGE = {"1d": 1, "5d": 5}
VALID_RANGES = [*_SESSIONS_OF_RANGE, *_DAYS_OF_RANGE, "ytd", "max"]


@dataclass(frozen=True)
class Window:
    """What a chart request asks for; `range` is empty where the request named instants."""

    start: datetime
    end: datetime
    interval: str
    range: str

    @property
    def is_probe(self) -> bool:
        """Whether this is yfinance's question for a symbol's time zone."""
        return self.range == "1d" and self.interval == "1d"


def read_window(query: Mapping[str, str], now: datetime) -> Window | Reply:
    """The window a query asks for, or Yahoo's refusal of it."""
    interval = query.get("interval", "1d")
    if interval not in INTERVALS:
        valid = ", ".join(INTERVALS)
        return chart_error(
            422,
            "Unprocessable Entity",
            f"Invalid input - interval={interval} is not supported. Valid: [{valid}]",
        )
    span = query.get("range", "")
    try:
        if "period1" in query:
            span = ""
            start = datetime.fromtimestamp(int(query["period1"]), UTC)
            end = datetime.fromtimestamp(int(query["period2"]), UTC) if "period2" in query else now
        else:
            span = span or "1d"
            start, end = _span(span, now), now + timedelta(seconds=1)
    except (ValueError, OverflowError, OSError) as error:
        return chart_error(400, "Bad Request", f"Invalid input - {error}")
    first, last = int(start.timestamp()), int(end.timestamp())
    if start > end:
        return chart_error(
            400,
            "Bad Request",
            f"Invalid input - start date cannot be after end date. startDate = {first}, endDate = {last}",
        )
    if INTERVALS[interval] == "1h" and start < now - timedelta(days=HOURLY_DAYS):
        return chart_error(
            422,
            "Unprocessable Entity",
            f"1h data not available for startTime={first} and endTime={last}. "
            f"The requested range must be within the last {HOURLY_DAYS} days.",
        )
    return Window(start, end, INTERVALS[interval], span)


def _span(name: str, now: datetime) -> datetime:
    """The start of the range `name` that ends at `now`; ValueError for an unknown one."""
    if name in _SESSIONS_OF_RANGE:
        opened = sessions(now - timedelta(days=20), now)
        return datetime.fromtimestamp(opened[-_SESSIONS_OF_RANGE[name]].open, UTC)
    if name in _DAYS_OF_RANGE:
        return now - timedelta(days=_DAYS_OF_RANGE[name])
    if name == "ytd":
        return datetime(now.astimezone(NEW_YORK).year, 1, 1, tzinfo=NEW_YORK)
    if name == "max":
        return datetime(FIRST_YEAR, 1, 1, tzinfo=NEW_YORK)
    raise ValueError(f"range={name} is not supported. Valid ranges: [{', '.join(VALID_RANGES)}]")


def chart_reply(series: Series, window: Window) -> Reply:
    """The chart document of `series`."""
    bars = list(series.bars) if window.interval == "1h" else _daily(series.bars)
    quote: dict[str, list[float | int | None]] = {}
    result: dict[str, object] = {"meta": _meta(series, window, bars)}
    if bars:
        result["timestamp"] = [int(bar.timestamp.timestamp()) for bar in bars]
        quote = {
            "open": [_number(bar.open) for bar in bars],
            "high": [_number(bar.high) for bar in bars],
            "low": [_number(bar.low) for bar in bars],
            "close": [_number(bar.close) for bar in bars],
            "volume": [None if math.isnan(bar.volume) else int(bar.volume) for bar in bars],
        }
    events = _events(series)
    if events:
        result["events"] = events
    indicators: dict[str, object] = {"quote": [quote]}
    if window.interval == "1d":
        indicators["adjclose"] = [{"adjclose": quote["close"]} if bars else {}]
    result["indicators"] = indicators
    return json_reply({"chart": {"result": [result], "error": None}})


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _daily(bars: tuple[Bar, ...]) -> list[Bar]:
    """One bar a session, at its open."""
    days = []
    for _, members in groupby(bars, key=lambda bar: bar.timestamp.astimezone(NEW_YORK).date()):
        hours = list(members)
        days.append(
            Bar(
                hours[0].timestamp,
                hours[0].open,
                max(bar.high for bar in hours),
                min(bar.low for bar in hours),
                hours[-1].close,
                sum(bar.volume for bar in hours),
            )
        )
    return days


def _meta(series: Series, window: Window, bars: list[Bar]) -> dict[str, object]:
    offset = series.now.astimezone(NEW_YORK)
    current = next(iter(sessions(series.now - timedelta(hours=4), series.now + timedelta(days=10))), None)
    asked = sessions(series.start, min(series.end, series.now))
    meta: dict[str, object] = {
        "currency": "USD",
        "symbol": series.symbol,
        "exchangeName": "NMS",
        "fullExchangeName": "NasdaqGS",
        "instrumentType": "EQUITY",
        "firstTradeDate": None if series.first_trade is None else int(series.first_trade.timestamp()),
        "gmtoffset": _offset(offset),
        "timezone": offset.tzname(),
        "exchangeTimezoneName": NEW_YORK.key,
        "hasPrePostMarketData": True,
        "priceHint": 2,
        "dataGranularity": window.interval,
        "range": window.range,
        "validRanges": VALID_RANGES,
    }
    if bars:
        meta["regularMarketPrice"] = _number(bars[-1].close)
        meta["regularMarketTime"] = int(min(bars[-1].timestamp + timedelta(hours=1), series.now).timestamp())
    if current is not None:
        meta["currentTradingPeriod"] = {
            "pre": _period(current.open - 19_800, current.open),
            "regular": _period(current.open, current.close),
            "post": _period(current.close, current.close + 14_400),
        }
    if window.interval == "1h":
        meta["tradingPeriods"] = [[_period(session.open, session.close)] for session in asked]
    return meta


def _period(start: int, end: int) -> dict[str, object]:
    local = datetime.fromtimestamp(start, NEW_YORK)
    return {"timezone": local.tzname(), "start": start, "end": end, "gmtoffset": _offset(local)}


def _offset(local: datetime) -> int:
    shift = local.utcoffset()
    return 0 if shift is None else int(shift.total_seconds())


def _events(series: Series) -> dict[str, dict[str, dict[str, float | int | str]]]:
    opens = {session.day: session.open for session in sessions(series.start, min(series.end, series.now))}
    events: dict[str, dict[str, dict[str, float | int | str]]] = {}
    for day, amount in series.dividends:
        if day in opens:
            at = opens[day]
            events.setdefault("dividends", {})[str(at)] = {"amount": amount, "date": at}
    for day, ratio in series.splits:
        if day in opens:
            at = opens[day]
            new, old = Fraction(ratio).limit_denominator(1000).as_integer_ratio()
            events.setdefault("splits", {})[str(at)] = {
                "date": at,
                "numerator": new,
                "denominator": old,
                "splitRatio": f"{new}:{old}",
            }
    return events
