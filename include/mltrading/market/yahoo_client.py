"""The part of the Yahoo adapter that needs yfinance; import it through `yahoo`.

yfinance 1.7 keeps the session: cookie, crumb, the consent page that Yahoo shows in Europe. Its reading of
charts is not used: it fails on an event or a trading period that it does not expect, drops bars without a
word and turns a missing volume into 0. What it does by itself and is kept from doing here:
- It keeps cookies in an SQLite file that parallel processes break for each other: an object replaces it.
- It meets every refusal with up to four more requests: refusals that those cannot cure end the fetch at once.
- It fixes some time-outs at 10 s: the session sets them all.
- It takes any text for a crumb, and follows redirects anywhere: the session looks at both.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from curl_cffi import CurlOpt
from curl_cffi.requests import Response, Session
from curl_cffi.requests.exceptions import RequestException
from yfinance import cache, data, exceptions  # type: ignore[import-untyped]

from include.mltrading.errors import (
    AccessDeniedError,
    MalformedReplyError,
    MLTradingError,
    NoBarsError,
    RateLimitedError,
    SymbolNotFoundError,
    UnfitReplyError,
    YahooError,
    YahooUnreachableError,
)
from include.mltrading.market.calendar import NEW_YORK
from include.mltrading.market.yahoo import YAHOO_HOST, SessionStore, VendorReply, VendorSession, server
from include.mltrading.market.yahoo_chart import UNREADABLE, Chart, read_chart

COOKIE_HOST = "fc.yahoo.com"
CHART_PATH = "/v8/finance/chart/"
CRUMB_PATH = "/v1/test/getcrumb"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Two years of hourly bars are 0.4 MB.
_LONGEST_BODY = 8_000_000
_LONGEST_TEXT = 300
_MOST_REDIRECTS = 10
# 999 is Yahoo's own "unable to process request". A new crumb may cure the others once.
_DENIED, _CURABLE = (401, 403, 999), (401, 403)
_TOO_MANY = b"Too Many Requests"
_CRUMB = re.compile(rb"[!-~]{1,100}")
_PRINTABLE = re.compile(r"[ -~]*")


class _CookieCache:
    """Stands in for yfinance's cookie file: the session itself remembers."""

    def lookup(self, strategy: str) -> None:
        return None

    def store(self, strategy: str, cookie: object) -> None:
        """Nothing to keep."""


cache._CookieCacheManager._Cookie_cache = _CookieCache()


class _SessionRefused(Exception):
    """Yahoo does not take the shared session's cookie and crumb any more."""


class _Unusable(OSError):
    """A reply that is no use whatever is in it.

    An OSError, because after one yfinance goes on without the cookie or the crumb, as it should; so it does
    after its own YFRateLimitError, but then it logs a 429.
    """


@dataclass
class _Fetch:
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


class YahooSession(Session[Response]):
    """yfinance's HTTP session: waits, redirects to `base_url`, and looks at every reply.

    It lives as long as its process, so connection, cookie and crumb serve all fetches.
    """

    def __init__(self, base_url: str | None) -> None:
        options = {}
        if base_url is not None and urlsplit(base_url).hostname in LOOPBACK:
            options[CurlOpt.NOPROXY] = ",".join(
                LOOPBACK
            )  # a proxy of the environment cannot reach this machine
        super().__init__(impersonate="chrome", curl_options=options)
        self.base_url_for_yahoo = base_url
        self.process = os.getpid()
        self.cookie_reply: Response | None = None
        self.chart_was_served = False
        self.current: _Fetch | None = None

    def request(self, method: Any, url: str, *args: Any, **kwargs: Any) -> Response:
        """Send one request; raises the errors of `yahoo.fetch_hourly` for replies that end the fetch."""
        fetch = self.current
        if fetch is None:
            raise RuntimeError("YahooSession was used outside fetch()")
        if fetch.refusal is not None:
            raise fetch.refusal  # yfinance goes on after some failures of cookie and crumb
        parts = urlsplit(url)
        is_cookie = parts.hostname == COOKIE_HOST
        if is_cookie and self.cookie_reply is not None and len(self.cookies):
            return self.cookie_reply
        if parts.path == CRUMB_PATH and fetch.shared is not None:
            raise _Unusable("no crumb was given to others either")  # the chart needs none
        kwargs["timeout"] = fetch.timeout
        fetch.is_new |= is_cookie or parts.path == CRUMB_PATH
        reply = self._send(fetch, method, url, *args, **kwargs)
        if is_cookie:
            self.cookie_reply = reply
        elif parts.path == CRUMB_PATH:
            # The chart can do without a crumb; yfinance takes the text of an error for one.
            if reply.status_code == 429:
                raise exceptions.YFRateLimitError
            if reply.status_code != 200 or not _CRUMB.fullmatch(reply.content):
                raise _Unusable("no crumb was given")
        elif urlsplit(reply.url).path.startswith(CHART_PATH):
            # Any answer of the chart service, "no such symbol" too, shows that it takes the session.
            self.chart_was_served |= reply.status_code < 500 and reply.status_code not in (*_DENIED, 429)
            _check_chart(fetch, reply)
        return reply

    def _send(self, fetch: _Fetch, method: Any, url: str, *args: Any, **kwargs: Any) -> Response:
        """The reply to one request, after the redirects that stay with Yahoo; its `url` is Yahoo's."""
        for _ in range(_MOST_REDIRECTS):
            parts = urlsplit(url)
            if not self._is_allowed(parts):
                raise _Unusable(f"sends to {parts.netloc!r}, which is not Yahoo's")
            try:
                fetch.before_request()
            except Exception as error:
                fetch.refusal = error
                raise
            body = _Body()
            kwargs |= {"allow_redirects": False, "content_callback": body.add}
            try:
                reply = super().request(method, self._address(parts), *args, **kwargs)
            except UnicodeError:
                raise _Unusable("sent a cookie or header that is no text") from None
            reply.content, reply.url = bytes(body.content), url
            target = reply.headers.get("Location")
            if reply.status_code not in (301, 302, 303, 307, 308) or not target:
                return reply
            try:
                url = urljoin(url, target)
            except ValueError:
                raise _Unusable("redirects to no address") from None
            kwargs.pop("params", None)  # they are in the new address
            if reply.status_code < 307:
                method = "GET"
                kwargs.pop("data", None)
                kwargs.pop("json", None)
        raise _Unusable(f"redirects more than {_MOST_REDIRECTS} times")

    def _is_allowed(self, parts: SplitResult) -> bool:
        """Whether it is one of Yahoo's hosts, or what stands in for them."""
        base = self.base_url_for_yahoo
        is_base = base is not None and parts.netloc == urlsplit(base).netloc.rpartition("@")[2]
        return parts.scheme in ("http", "https") and (is_base or _is_yahoos(parts.hostname))

    def _address(self, parts: SplitResult) -> str:
        """`parts` with scheme and host of `base_url` where they were Yahoo's."""
        if self.base_url_for_yahoo is None or not _is_yahoos(parts.hostname):
            return urlunsplit(parts)
        target = urlsplit(self.base_url_for_yahoo)
        path = target.path.rstrip("/") + (parts.path or "/")
        return urlunsplit((target.scheme, target.netloc, path, parts.query, ""))


class _Body:
    """What a reply brings, unpacked, as far as it is not absurdly much."""

    def __init__(self) -> None:
        self.content = bytearray()

    def add(self, chunk: bytes) -> int:
        if len(self.content) + len(chunk) > _LONGEST_BODY:
            raise _Unusable(f"sent more than {_LONGEST_BODY // 1_000_000} MB")
        self.content += chunk
        return len(chunk)


_session: YahooSession | None = None
_inherited: list[YahooSession] = []


def fetch(
    symbol: str,
    start: datetime,
    end: datetime,
    *,
    base_url: str | None,
    before_request: Callable[[], None],
    request_timeout: float,
    sessions: SessionStore | None,
) -> VendorReply:
    """See `yahoo.fetch_hourly`; start and end are UTC."""
    window = f"{symbol} from {start:%Y-%m-%dT%H:%M:%SZ} to {end:%Y-%m-%dT%H:%M:%SZ}"
    session = _session_for(base_url)

    def attempt(shared: VendorSession | None) -> VendorReply:
        state = _Fetch(window, server(base_url), before_request, request_timeout, shared)
        return _fetch(symbol, start, end, session, state)

    if sessions is None:
        return attempt(None)
    shared = sessions.load()
    if shared is not None:
        _adopt(session, shared)
        try:
            return attempt(shared)
        except _SessionRefused:
            sessions.discard(shared)
        shared = sessions.load()
        if shared is not None:  # somebody else was faster
            _adopt(session, shared)
            try:
                return attempt(shared)
            except _SessionRefused:
                raise AccessDeniedError(
                    f"{window}: {server(base_url)} refuses every session; try again later"
                ) from None
    _forget(session)
    try:
        return attempt(None)
    finally:
        obtained = _obtained(session)
        if obtained is None:
            sessions.abandon()
        else:
            sessions.save(obtained)


def _adopt(session: YahooSession, shared: VendorSession) -> None:
    """Let yfinance use the shared cookie and crumb as if it had obtained them."""
    _forget(session)
    for cookie in shared.cookies:
        session.cookies.set(cookie["name"], cookie["value"], domain=cookie["domain"], path=cookie["path"])
    yahoo_data = data.YfData(session=session)
    yahoo_data._crumb = shared.crumb
    yahoo_data._cookie = True


def _forget(session: YahooSession) -> None:
    """Drop cookie and crumb from this process's memory."""
    data.SingletonMeta._instances.pop(data.YfData, None)
    session.cookies.clear()
    session.cookie_reply = None
    session.chart_was_served = False


def _obtained(session: YahooSession) -> VendorSession | None:
    """The session that this process has obtained; None where nothing shows that Yahoo takes it.

    Cookies that are no plain text, which a database may not hold, are left out: charts can do without.
    """
    if not session.chart_was_served:
        return None
    cookies = tuple(
        {"name": cookie.name, "value": cookie.value, "domain": cookie.domain, "path": cookie.path}
        for cookie in session.cookies.jar
        if all(
            _PRINTABLE.fullmatch(text or "")
            for text in (cookie.name, cookie.value, cookie.domain, cookie.path)
        )
    )
    return VendorSession(cookies, data.YfData(session=session)._crumb)


def _fetch(symbol: str, start: datetime, end: datetime, session: YahooSession, state: _Fetch) -> VendorReply:
    session.current = state
    asked = symbol.replace(".", "-").upper()
    try:
        reply = data.YfData(session=session).get(
            f"https://{YAHOO_HOST}{CHART_PATH}{asked}",
            {
                "period1": int(start.timestamp()),
                "period2": int(end.timestamp()),
                "interval": "60m",
                "includePrePost": False,
                "events": "div,splits",
            },
        )
        _check_chart(state, reply)  # of a consent page it is only the last reply that is the chart
        if reply.status_code != 200:
            raise state.denied() if reply.status_code in _DENIED else state.malformed("sent no chart")
        chart = _read(state, reply, asked)
        session.chart_was_served = True
    except _SessionRefused:
        raise
    except Exception as error:
        if state.refusal is not None:
            raise state.refusal from None
        meaning = _meaning(state, error)
        if meaning is None:
            raise
        raise meaning from error
    finally:
        session.current = None
    days = start.astimezone(NEW_YORK).date(), end.astimezone(NEW_YORK).date()
    bars = [bar for bar in sorted(chart.bars, key=lambda bar: bar.timestamp) if start <= bar.timestamp < end]
    if not bars:
        raise state.no_bars()
    return VendorReply(
        symbol=symbol,
        bars=bars,
        splits=[split for split in chart.splits if days[0] <= split.ex_date <= days[1]],
        dividends=[dividend for dividend in chart.dividends if days[0] <= dividend.ex_date <= days[1]],
        source=state.source,
        first_trade=chart.first_trade,
        events_lost=chart.events_lost,
    )


def _read(fetch: _Fetch, reply: Response, asked: str) -> Chart:
    """The chart in a reply with status 200; raises what else it says."""
    try:
        chart = read_chart(reply.content, asked)
    except UNREADABLE:
        if _TOO_MANY in reply.content:
            raise fetch.rate_limited() from None
        if b"Will be right back" in reply.content:
            raise fetch.unreachable("says that it is down") from None
        raise
    if chart.reason is not None:
        raise fetch.refused(chart.reason)
    if chart.misfit is not None:
        raise fetch.error(
            UnfitReplyError,
            f"serves something else by its own words: {chart.misfit}",
            "nothing is stored; correct or remove the symbol",
        )
    return chart


def _session_for(base_url: str | None) -> YahooSession:
    """This process's session for `base_url`."""
    global _session
    old = _session
    if old is not None and old.process == os.getpid() and old.base_url_for_yahoo == base_url:
        return old
    new = YahooSession(base_url)
    if old is not None and old.base_url_for_yahoo == base_url:
        # Forked: cookie and crumb are good here too, the connection belongs to the parent.
        new.cookies.update(old.cookies)
        new.cookie_reply = old.cookie_reply
    else:
        data.SingletonMeta._instances.pop(data.YfData, None)  # another server, another crumb
    if old is not None:
        if old.process == os.getpid():
            old.close()
        else:
            _inherited.append(old)  # closing it would end the parent's TLS connection
    _session = new
    return new


def _check_chart(fetch: _Fetch, reply: Response) -> None:
    """Remember what the reply says about itself, and raise for a status that more requests cannot cure."""
    status = fetch.status = reply.status_code
    fetch.source = "simulated" if reply.headers.get("X-Market-Data") == "simulated" else "yahoo"
    if status == 429 or (status >= 400 and _TOO_MANY in reply.content):
        fetch.retry_after = _seconds(reply.headers.get("Retry-After"))
        raise fetch.rate_limited()
    if status in _CURABLE and fetch.shared is not None:
        raise _SessionRefused
    if status in _CURABLE and not fetch.is_new:
        return  # yfinance tries a new crumb
    if status in _DENIED:
        raise fetch.denied()
    if status >= 500:
        raise fetch.unreachable(f"answered HTTP {status}")
    if status >= 400:
        raise fetch.refused(_reason(fetch, reply))


def _reason(fetch: _Fetch, reply: Response) -> str:
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


def _meaning(fetch: _Fetch, error: Exception) -> Exception | None:
    """What `error` says about Yahoo; None where it says nothing about it."""
    if isinstance(error, MLTradingError):
        return error
    if fetch.status in _DENIED:
        return fetch.denied()  # whatever yfinance made of it
    if isinstance(error, exceptions.YFRateLimitError):
        return fetch.rate_limited()
    if isinstance(error, _Unusable):
        return fetch.malformed(str(error))
    if isinstance(error, RequestException):
        return fetch.unreachable(f"cannot be reached ({_transport(error)})")
    if isinstance(error, (exceptions.YFException, *UNREADABLE)):
        return fetch.malformed(f"sent what cannot be read ({type(error).__name__}: {error})")
    return None


def _is_yahoos(host: str | None) -> bool:
    return re.fullmatch(r"([a-z0-9-]+\.)*yahoo\.com", host or "") is not None


def _one_line(text: str) -> str:
    """The beginning of a text from outside, without what a terminal or a database cannot take."""
    kept = "".join(c if c.isprintable() else " " for c in text[: 4 * _LONGEST_TEXT])
    line = " ".join(kept.split())
    return line if len(line) <= _LONGEST_TEXT else line[:_LONGEST_TEXT] + " …"


def _transport(error: RequestException) -> str:
    """libcurl's words without its advice to read the manual."""
    return str(error).removeprefix("Failed to perform, ").partition(" See https://curl.se")[0].rstrip(".")
