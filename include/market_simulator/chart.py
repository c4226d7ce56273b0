"""Yahoo's v8 chart document: reading the query, writing the answer.

Shapes as real replies show them: `timestamp` holds each bar's start in Unix seconds, an empty window has no
`timestamp` and an empty quote, events hang on their session's open.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from include.market_simulator.messages import Reply, Series, chart_error, json_reply
from include.market_simulator.prices import NEW_YORK, Bar, sessions

HOURLY_DAYS = 730  # how far back Yahoo serves hourly bars
_SESSIONS_OF_RANGE = {"1d": 1, "5d": 5}


@dataclass(frozen=True)
class Window:
    """What a chart request asks for. is_probe: only for the symbol's time zone, as yfinance does."""

    start: datetime
    end: datetime
    is_probe: bool = False


def read_window(query: Mapping[str, str], now: datetime) -> Window | Reply:
    """The window a query asks for, or Yahoo's refusal of it."""
    interval, span = query.get("interval", "1d"), query.get("range", "1d")
    is_probe = (interval, span) == ("1d", "1d") and "period1" not in query
    if interval not in ("60m", "1h") and not is_probe:
        return chart_error(
            422,
            "Unprocessable Entity",
            f"Invalid input - interval={interval} is not supported. Valid: [60m, 1h]",
        )
    try:
        if "period1" in query:
            start = datetime.fromtimestamp(int(query["period1"]), UTC)
            end = datetime.fromtimestamp(int(query["period2"]), UTC) if "period2" in query else now
        else:
            start, end = _start_of_range(span, now), now + timedelta(seconds=1)
    except (ValueError, OverflowError, OSError) as error:
        return chart_error(400, "Bad Request", f"Invalid input - {error}")
    first, last = int(start.timestamp()), int(end.timestamp())
    if start > end:
        return chart_error(
            400,
            "Bad Request",
            f"Invalid input - start date cannot be after end date. startDate = {first}, endDate = {last}",
        )
    if start < now - timedelta(days=HOURLY_DAYS):
        return chart_error(
            422,
            "Unprocessable Entity",
            f"1h data not available for startTime={first} and endTime={last}. "
            f"The requested range must be within the last {HOURLY_DAYS} days.",
        )
    return Window(start, end, is_probe)


def _start_of_range(name: str, now: datetime) -> datetime:
    if name not in _SESSIONS_OF_RANGE:
        raise ValueError(f"range={name} is not supported. Valid ranges: [{', '.join(_SESSIONS_OF_RANGE)}]")
    opened = sessions(now - timedelta(days=20), now)
    return datetime.fromtimestamp(opened[-_SESSIONS_OF_RANGE[name]].open, UTC)


def chart_reply(series: Series) -> Reply:
    """The chart document of `series`."""
    result: dict[str, object] = {"meta": _meta(series)}
    quote: dict[str, list[float | int | None]] = {}
    if series.bars:
        result["timestamp"] = [int(bar.timestamp.timestamp()) for bar in series.bars]
        quote = {
            name: [_number(getattr(bar, name)) for bar in series.bars]
            for name in ("open", "high", "low", "close")
        }
        quote["volume"] = [None if math.isnan(bar.volume) else int(bar.volume) for bar in series.bars]
    events = _events(series)
    if events:
        result["events"] = events
    result["indicators"] = {"quote": [quote]}
    return json_reply({"chart": {"result": [result], "error": None}})


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _meta(series: Series) -> dict[str, object]:
    local = series.now.astimezone(NEW_YORK)
    current = next(iter(sessions(series.now - timedelta(hours=4), series.now + timedelta(days=10))), None)
    asked = sessions(series.start, min(series.end, series.now))
    meta: dict[str, object] = {
        "currency": "USD",
        "symbol": series.symbol,
        "exchangeName": "NMS",
        "fullExchangeName": "NasdaqGS",
        "instrumentType": "EQUITY",
        "firstTradeDate": None if series.first_trade is None else int(series.first_trade.timestamp()),
        "gmtoffset": _offset(local),
        "timezone": local.tzname(),
        "exchangeTimezoneName": NEW_YORK.key,
        "hasPrePostMarketData": True,
        "priceHint": 2,
        "dataGranularity": "1h",
        "tradingPeriods": [[_period(session.open, session.close)] for session in asked],
    }
    if series.bars:
        last: Bar = series.bars[-1]
        meta["regularMarketPrice"] = _number(last.close)
        meta["regularMarketTime"] = int(min(last.timestamp + timedelta(hours=1), series.now).timestamp())
    if current is not None:
        meta["currentTradingPeriod"] = {
            "pre": _period(current.open - 19_800, current.open),
            "regular": _period(current.open, current.close),
            "post": _period(current.close, current.close + 14_400),
        }
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
        if (at := opens.get(day)) is not None:
            events.setdefault("dividends", {})[str(at)] = {"amount": amount, "date": at}
    for day, ratio in series.splits:
        if (at := opens.get(day)) is not None:
            new, old = Fraction(ratio).limit_denominator(1000).as_integer_ratio()
            events.setdefault("splits", {})[str(at)] = {
                "date": at,
                "numerator": new,
                "denominator": old,
                "splitRatio": f"{new}:{old}",
            }
    return events
