"""What an answer is made of: the bars and events of one symbol, and the HTTP reply that tells them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import date, datetime

from include.market_simulator.prices import FIRST_YEAR, NEW_YORK, Bar


@dataclass(frozen=True)
class Series:
    """One symbol's bars and events in [start, end) as they stand at `now` (all UTC).

    first_trade: since when it says that the symbol trades; None where it does not say.
    splits: ex-date → new shares for one old. dividends: ex-date → US dollars a share.
    """

    symbol: str
    start: datetime
    end: datetime
    now: datetime
    bars: tuple[Bar, ...]
    splits: tuple[tuple[date, float], ...] = ()
    dividends: tuple[tuple[date, float], ...] = ()
    first_trade: datetime | None = datetime(FIRST_YEAR, 1, 2, 9, 30, tzinfo=NEW_YORK)


@dataclass(frozen=True)
class Reply:
    """status, body and headers of an answer; sent after `delay` seconds, or cut by a TCP reset instead."""

    status: int
    body: bytes
    content_type: str = "application/json;charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    reset: bool = False


def json_reply(document: object, status: int = 200) -> Reply:
    """`document` as JSON; raises ValueError on NaN, which JSON has not."""
    return Reply(status, json.dumps(document, separators=(",", ":"), allow_nan=False).encode())


def chart_error(status: int, code: str, description: str) -> Reply:
    """The chart service's own way to say no."""
    return json_reply(
        {"chart": {"result": None, "error": {"code": code, "description": description}}}, status
    )


def status_reply(status: int, retry_after: float | None = None) -> Reply:
    """A bare HTTP status as Yahoo's edge sends it, with a Retry-After header where one is given."""
    if status == 404:
        return chart_error(404, "Not Found", "No data found, symbol may be delisted")
    headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
    text = {429: "Too Many Requests", 500: "Internal Server Error"}.get(status, f"HTTP {status}")
    return Reply(status, f"{text}\r\n".encode(), "text/plain;charset=utf-8", headers)
