"""What Yahoo's answers mean: statuses, its own words, failures on the way, as errors of one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from curl_cffi.requests import Response
from curl_cffi.requests.exceptions import RequestException
from yfinance import exceptions  # type: ignore[import-untyped]

from include.mltrading.errors import (
    AccessDeniedError,
    MalformedReplyError,
    MLTradingError,
    NoBarsError,
    RateLimitedError,
    SymbolNotFoundError,
    YahooError,
    YahooUnreachableError,
)
from include.mltrading.market.yahoo import VendorSession
from include.mltrading.market.yahoo_chart import UNREADABLE, read_chart

# 999 is Yahoo's own "unable to process request". A new crumb may cure the others once.
DENIED, _CURABLE = (401, 403, 999), (401, 403)
TOO_MANY = b"Too Many Requests"
_LONGEST_TEXT = 300


class SessionRefusedError(Exception):
    """Yahoo does not take the shared session's cookie and crumb any more."""


class UnusableError(OSError):
    """A reply that is no use whatever is in it.

    An OSError, because after one yfinance goes on without the cookie or the crumb, as it should; so it does
    after its own YFRateLimitError, but then it logs a 429.
    """


@dataclass
class Asked:
    """One fetch: what the session has to know, and what it saw."""

    subject: str  # "AAPL from … to …"
    host: str
    before_request: Callable[[], None]
    timeout: float
    shared: VendorSession | None = None  # the session that other processes obtained
    is_new: bool = False  # the session was asked for in this fetch
    refusal: Exception | None = None  # what before_request raised
    status: int | None = None  # of the last reply to a chart request
    retry_after: float | None = None
    source: str = "yahoo"

    def error(self, kind: type[YahooError], what: str, remedy: str) -> YahooError:
        """A one-line error of `kind` that names symbol, window, host and remedy."""
        return kind(f"{self.subject}: {self.host} {_one_line(what)}; {remedy}")

    def unreachable(self, what: str) -> YahooError:
        return self.error(
            YahooUnreachableError, what, "try again later, or check network and MLTRADING_YAHOO_URL"
        )

    def malformed(self, what: str) -> YahooError:
        status = "" if self.status in (None, 200) else f" (HTTP {self.status})"
        return self.error(
            MalformedReplyError,
            f"{what}{status}",
            "try again later, or check that MLTRADING_YAHOO_URL is right",
        )

    def rate_limited(self) -> RateLimitedError:
        wait = "a while" if self.retry_after is None else f"{self.retry_after:g} s"
        told = "answered 429" if self.status == 429 else f"answered HTTP {self.status}"
        return RateLimitedError(
            f"{self.subject}: {self.host} {told} (too many requests); try again after {wait}",
            self.retry_after,
        )

    def denied(self) -> YahooError:
        return self.error(
            AccessDeniedError,
            f"refuses this machine, not this symbol (HTTP {self.status})",
            "try again later, or check that MLTRADING_YAHOO_URL is right",
        )

    def no_bars(self, why: str = "has no bar there") -> YahooError:
        return self.error(NoBarsError, why, "choose a window with trading hours in the last 730 days")

    def refused(self, reason: str) -> YahooError:
        """The error for a reason that Yahoo gave in words."""
        if "No data found" in reason or "delisted" in reason:
            return self.error(
                SymbolNotFoundError, f"knows no such symbol ({reason})", "correct or remove the symbol"
            )
        if "Data doesn't exist" in reason or "must be within the last" in reason:
            return self.no_bars(f"refused the window ({reason})")
        return self.error(
            YahooError, f"refused (HTTP {self.status}: {reason})", "correct the request or try later"
        )


def check_chart(fetch: Asked, reply: Response) -> None:
    """Remember what the reply says about itself, and raise for a status that more requests cannot cure."""
    status = fetch.status = reply.status_code
    fetch.source = "simulated" if reply.headers.get("X-Market-Data") == "simulated" else "yahoo"
    if status == 429 or (status >= 400 and TOO_MANY in reply.content):
        fetch.retry_after = _seconds(reply.headers.get("Retry-After"))
        raise fetch.rate_limited()
    if status in _CURABLE and fetch.shared is not None:
        raise SessionRefusedError
    if status in _CURABLE and not fetch.is_new:
        return  # yfinance tries a new crumb
    if status in DENIED:
        raise fetch.denied()
    if status >= 500:
        raise fetch.unreachable(f"answered HTTP {status}")
    if status >= 400:
        raise fetch.refused(_reason(fetch, reply))


def _reason(fetch: Asked, reply: Response) -> str:
    """Yahoo's words in an error reply."""
    try:
        reason = read_chart(reply.content, "").reason
    except UNREADABLE:
        reason = None
    if reason is None:
        raise fetch.malformed("gave an error that is not Yahoo's")
    return reason


def _seconds(header: str | None) -> float | None:
    """A Retry-After header, which holds seconds or a date, as seconds from now; None where there is none."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def meaning_of(fetch: Asked, error: Exception) -> Exception | None:
    """What `error` says about Yahoo; None where it says nothing about it."""
    if isinstance(error, MLTradingError):
        return error
    if fetch.status in DENIED:
        return fetch.denied()  # whatever yfinance made of it
    if isinstance(error, exceptions.YFRateLimitError):
        return fetch.rate_limited()
    if isinstance(error, UnusableError):
        return fetch.malformed(str(error))
    if isinstance(error, RequestException):
        return fetch.unreachable(f"cannot be reached ({_transport(error)})")
    if isinstance(error, (exceptions.YFException, *UNREADABLE)):
        return fetch.malformed(f"sent what cannot be read ({type(error).__name__}: {error})")
    return None


def _one_line(text: str) -> str:
    """The beginning of a text from outside, without what a terminal or a database cannot take."""
    kept = "".join(c if c.isprintable() else " " for c in text[: 4 * _LONGEST_TEXT])
    line = " ".join(kept.split())
    return line if len(line) <= _LONGEST_TEXT else line[:_LONGEST_TEXT] + " …"


def _transport(error: RequestException) -> str:
    """libcurl's words without its advice to read the manual."""
    return str(error).removeprefix("Failed to perform, ").partition(" See https://curl.se")[0].rstrip(".")
