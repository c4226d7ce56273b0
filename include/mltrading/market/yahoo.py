"""Hourly bars from Yahoo, through yfinance.

yfinance costs up to 3 seconds and 124 MB to import, so it is imported at the first fetch or by `preload`,
which a process calls before it forks workers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

from include.mltrading.errors import UsageError
from include.mltrading.market.bars import Bar

# HTTP requests for one symbol and window once a session is shared; obtaining one takes two more.
REQUESTS_PER_FETCH = 1
YAHOO_HOST = "query2.finance.yahoo.com"


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
    source: "yahoo", or "simulated" where the reply's X-Market-Data header says so. first_trade: when the
    symbol was first traded, UTC; None where Yahoo does not say. events_lost: some event could not be read, so
    that one which is not there may still be true.
    """

    symbol: str
    bars: list[Bar]
    splits: list[Split]
    dividends: list[Dividend]
    source: str
    first_trade: datetime | None = None
    events_lost: bool = False


@dataclass(frozen=True)
class VendorSession:
    """An anonymous session with Yahoo: what a browser that has never logged in holds. Kept out of logs.

    cookies: each as name, value, domain, path. crumb: None where Yahoo gave none; charts can do without.
    obtained_at: None until it is shared.
    """

    cookies: tuple[dict[str, Any], ...] = field(repr=False)
    crumb: str | None = field(repr=False)
    obtained_at: datetime | None = None


class SessionStore(Protocol):
    """Where processes share one session."""

    def load(self) -> VendorSession | None:
        """The session; None tells the caller to obtain one and then to call `save` or `abandon`."""

    def save(self, session: VendorSession) -> None:
        """Share a session that the caller has obtained."""

    def abandon(self) -> None:
        """The caller could not obtain a session."""

    def discard(self, session: VendorSession) -> None:
        """Yahoo refused the session."""


def server(base_url: str | None) -> str:
    """Host and port that chart requests go to, without any login in the URL."""
    return YAHOO_HOST if base_url is None else urlsplit(base_url).netloc.rpartition("@")[2]


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
    sessions: SessionStore | None = None,
) -> VendorReply:
    """The hourly bars of `symbol` that start in [start, end), with the window's splits and dividends.

    start, end: timezone-aware. base_url: where to send what would go to *.yahoo.com, None for Yahoo itself.
    before_request: called ahead of every HTTP request, so a rate limiter can wait there; what it raises ends
    the fetch and propagates. request_timeout: seconds for each request. sessions: where cookie and crumb are
    shared between processes, None to keep them in this one's memory.

    A first fetch makes 3 requests (cookie, crumb, chart), each later one makes 1. Nothing is written to disk.
    A shared session that Yahoo refuses is renewed once. One fetch at a time per process. An event that cannot
    be read is lost with a log line.

    Raises UsageError (start not before end, a wrong base_url), RateLimitedError (429, or its words),
    AccessDeniedError (401, 403, 999), SymbolNotFoundError, NoBarsError (a known symbol with no bar in the
    window, or a window older than Yahoo serves), UnfitReplyError (bars of something else, or not hourly),
    MalformedReplyError (HTML, cut JSON, missing keys, far too long, a redirect to other hosts),
    YahooUnreachableError (DNS, connection, time-out, 5xx) and YahooError for any other refusal.
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
        sessions=sessions,
    )


def _is_http(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("http", "https") and bool(parts.hostname)
