"""Hourly bars from Yahoo, through yfinance.

yfinance costs up to 3 seconds and 124 MB to import, so it is imported at the first fetch or by `preload`,
which a process calls before it forks workers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from urllib.parse import urlsplit

from include.mltrading.errors import UsageError
from include.mltrading.market.bars import Bar


@dataclass(frozen=True)
class Split:
    """A share split; ratio: new shares for one old."""

    ex_date: date
    ratio: float


@dataclass(frozen=True)
class Dividend:
    """A cash dividend; amount: US dollars a share."""

    ex_date: date
    amount: float


@dataclass(frozen=True)
class VendorReply:
    """What Yahoo served for one symbol and window.

    bars: as the vendor has them, oldest first; NaN prices and rows off the hourly grid included.
    source: "yahoo", or "simulated" where the reply's X-Market-Data header says so.
    """

    symbol: str
    bars: list[Bar]
    splits: list[Split]
    dividends: list[Dividend]
    source: str


def preload() -> None:
    """Import yfinance now, so that processes forked from this one need not."""
    from include.mltrading.market import yahoo_client  # noqa: F401


def fetch_hourly(
    symbol: str,
    start: datetime,
    end: datetime,
    *,
    base_url: str | None = None,
    before_request: Callable[[], None] = lambda: None,
    request_timeout: float = 30.0,
) -> VendorReply:
    """The hourly bars of `symbol` that start in [start, end), with the window's splits and dividends.

    start, end: timezone-aware. base_url: where to send what would go to *.yahoo.com, None for Yahoo itself.
    before_request: called ahead of every HTTP request, so a rate limiter can wait there; what it raises ends
    the fetch and propagates. request_timeout: seconds for each request.

    A first fetch makes 3 requests (cookie, crumb, chart), each later one of the same process makes 1. Cookie
    and crumb are kept in memory, and nothing is written to disk. One fetch at a time per process.

    Raises UsageError (start not before end, a wrong base_url), RateLimitedError (429), SymbolNotFoundError,
    NoBarsError (a known symbol with no bar in the window, or a window older than Yahoo serves),
    MalformedReplyError (HTML, cut JSON, missing keys), YahooUnreachableError (DNS, connection, time-out, 5xx)
    and YahooError for any other refusal.
    """
    if start.tzinfo is None or end.tzinfo is None:
        raise UsageError(f"{symbol}: start {start} and end {end} need a time zone: add one, such as +00:00")
    if start >= end:
        raise UsageError(f"{symbol}: start {start} is not before end {end}: swap or widen them")
    if base_url is not None and not _is_http(base_url):
        raise UsageError(
            f"{base_url!r} is no address for Yahoo's server: give one such as http://127.0.0.1:8000"
        )

    from include.mltrading.market import yahoo_client

    return yahoo_client.fetch(
        symbol,
        start.astimezone(UTC),
        end.astimezone(UTC),
        base_url=base_url,
        before_request=before_request,
        request_timeout=request_timeout,
    )


def _is_http(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("http", "https") and bool(parts.hostname)
