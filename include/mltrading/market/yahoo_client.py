"""The part of the Yahoo adapter that needs yfinance; import it through `yahoo`.

What yfinance 1.7 does by itself and is kept from doing here:
- It turns failures into empty frames: `hide_exceptions` is off.
- It answers past windows from a cache that holds bad replies too: emptied before every fetch.
- It keeps cookies and time zones in SQLite files that parallel processes break for each other: replaced by
  objects in memory. All symbols trade in New York, so the time-zone probe, a request a symbol, is not needed.
- It meets every refusal with up to four more requests: refusals that those cannot cure end the fetch at once.
- It fixes some time-outs at 10 s: the session sets them all.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit
from zoneinfo import ZoneInfo

import yfinance  # type: ignore[import-untyped]
from curl_cffi import CurlOpt
from curl_cffi.requests import Response, Session
from curl_cffi.requests.exceptions import RequestException
from yfinance import cache, data, exceptions

from include.mltrading.errors import (
    MalformedReplyError,
    MLTradingError,
    NoBarsError,
    RateLimitedError,
    SymbolNotFoundError,
    YahooError,
    YahooUnreachableError,
)
from include.mltrading.market.bars import Bar
from include.mltrading.market.yahoo import (
    Dividend,
    SessionStore,
    Split,
    VendorReply,
    VendorSession,
    server,
)

NEW_YORK = ZoneInfo("America/New_York")
COOKIE_HOST = "fc.yahoo.com"
CHART_PATH = "/v8/finance/chart/"
CRUMB_PATH = "/v1/test/getcrumb"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PRICES = ["Open", "High", "Low", "Close", "Volume"]


class _ZoneCache:
    """Stands in for yfinance's time-zone file: knows the answer."""

    def lookup(self, key: str) -> str:
        return NEW_YORK.key

    def store(self, key: str, value: str | None) -> None:
        """Nothing to keep."""


class _CookieCache:
    """Stands in for yfinance's cookie file: the session itself remembers."""

    def lookup(self, strategy: str) -> None:
        return None

    def store(self, strategy: str, cookie: object) -> None:
        """Nothing to keep."""


yfinance.config.debug.hide_exceptions = False
cache._TzCacheManager._tz_cache = _ZoneCache()
cache._CookieCacheManager._Cookie_cache = _CookieCache()


class _SessionRefused(Exception):
    """Yahoo does not take the shared session's cookie and crumb any more."""


@dataclass
class _Fetch:
    """One fetch: what the session has to know, and what it saw."""

    subject: str  # "AAPL from … to …"
    host: str
    before_request: Callable[[], None]
    timeout: float
    shared: VendorSession | None = None  # the session that other processes obtained
    refusal: Exception | None = None  # what before_request raised
    status: int | None = None  # of the last reply to a chart request
    chart: bytes = b""  # its body
    retry_after: float | None = None
    source: str = "yahoo"

    def error(self, kind: type[YahooError], what: str, remedy: str) -> YahooError:
        """A one-line error of `kind` that names symbol, window, host and remedy."""
        return kind(" ".join(f"{self.subject}: {self.host} {what}; {remedy}".split()))

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
        return RateLimitedError(
            f"{self.subject}: {self.host} answered 429 (too many requests); try again after {wait}",
            self.retry_after,
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
            raise exceptions.YFRateLimitError  # others know that there is none to get; the chart needs none
        try:
            fetch.before_request()
        except Exception as error:
            fetch.refusal = error
            raise
        kwargs["timeout"] = fetch.timeout
        reply = super().request(method, self._address(parts), *args, **kwargs)
        if is_cookie:
            self.cookie_reply = reply
        elif parts.path == CRUMB_PATH and reply.status_code >= 400:
            # The chart can do without a crumb, and on this error yfinance goes on without; on others it
            # takes the error's text for the crumb.
            raise exceptions.YFRateLimitError
        elif parts.path.startswith(CHART_PATH):
            # Any answer of the chart service, "no such symbol" too, shows that it takes the session.
            self.chart_was_served |= reply.status_code < 500 and reply.status_code not in (401, 403, 429)
            _check_chart(fetch, reply)
        return reply

    def _address(self, parts: SplitResult) -> str:
        """`parts` with scheme and host of `base_url` where they were Yahoo's."""
        host = parts.hostname or ""
        if self.base_url_for_yahoo is None or not (host == "yahoo.com" or host.endswith(".yahoo.com")):
            return urlunsplit(parts)
        target = urlsplit(self.base_url_for_yahoo)
        path = target.path.rstrip("/") + (parts.path or "/")
        return urlunsplit((target.scheme, target.netloc, path, parts.query, ""))


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
                raise MalformedReplyError(
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
    """The session that this process has obtained; None where nothing shows that Yahoo takes it."""
    if not session.chart_was_served:
        return None
    cookies = tuple(
        {"name": cookie.name, "value": cookie.value, "domain": cookie.domain, "path": cookie.path}
        for cookie in session.cookies.jar
    )
    return VendorSession(cookies, data.YfData(session=session)._crumb)


def _fetch(symbol: str, start: datetime, end: datetime, session: YahooSession, state: _Fetch) -> VendorReply:
    session.current = state
    data.YfData.cache_get.cache_clear()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="yfinance")  # its own use of what pandas gives up
            frame = yfinance.Ticker(symbol.replace(".", "-"), session=session).history(
                interval="60m",
                start=start,
                end=end,
                prepost=False,
                actions=True,
                auto_adjust=False,
                repair=False,
                keepna=True,
            )
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
    reply = _vendor_reply(symbol, frame, start, end, state)
    if not reply.bars:
        raise state.no_bars()
    return reply


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
    fetch.status = reply.status_code
    fetch.chart = reply.content
    fetch.source = "simulated" if reply.headers.get("X-Market-Data") == "simulated" else "yahoo"
    if reply.status_code == 429:
        fetch.retry_after = _seconds(reply.headers.get("Retry-After"))
        raise fetch.rate_limited()
    if reply.status_code >= 500:
        raise fetch.unreachable(f"answered HTTP {reply.status_code}")
    if reply.status_code in (401, 403) and fetch.shared is not None:
        raise _SessionRefused
    if reply.status_code >= 400 and reply.status_code not in (401, 403):  # those a new crumb may cure
        raise fetch.refused(_reason(fetch, reply))


def _reason(fetch: _Fetch, reply: Response) -> str:
    """Yahoo's words in an error reply."""
    try:
        return str(json.loads(reply.content)["chart"]["error"]["description"])
    except (ValueError, KeyError, TypeError):
        raise fetch.malformed("gave an error that is not Yahoo's") from None


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
    except (ValueError, TypeError):
        return None


def _meaning(fetch: _Fetch, error: Exception) -> Exception | None:
    """What `error` says about Yahoo; None where it says nothing about it."""
    if isinstance(error, MLTradingError):
        return error
    if isinstance(error, exceptions.YFRateLimitError):
        return fetch.rate_limited()
    if isinstance(error, exceptions.YFPricesMissingError):
        if fetch.status != 200:
            return fetch.refused("access denied")
        return fetch.no_bars() if error.yahoo_reason is None else fetch.refused(str(error.yahoo_reason))
    if isinstance(error, exceptions.YFDataException):
        return fetch.unreachable("says that it is down")
    if isinstance(error, RequestException):
        return fetch.unreachable(f"cannot be reached ({_transport(error)})")
    if isinstance(error, exceptions.YFException | ValueError | LookupError | TypeError | AttributeError):
        return fetch.malformed(f"sent what cannot be read ({type(error).__name__}: {error})")
    return None


def _transport(error: RequestException) -> str:
    """libcurl's words without its advice to read the manual."""
    return str(error).removeprefix("Failed to perform, ").partition(" See https://curl.se")[0].rstrip(".")


def _vendor_reply(symbol: str, frame: Any, start: datetime, end: datetime, state: _Fetch) -> VendorReply:
    """`frame`, as `Ticker.history` returns it, in our terms; rows outside [start, end) are left out."""
    raw = _raw_bars(state.chart)
    # yfinance makes a missing volume 0; here it stays missing.
    no_volume = [bar.timestamp for bar in raw if math.isnan(bar.volume)]
    frame["Volume"] = frame["Volume"].astype(float).mask(frame.index.isin(no_volume))
    bars = [
        Bar(stamp.to_pydatetime().astimezone(UTC), *(float(value) for value in values))
        for stamp, *values in frame[PRICES].itertuples()
    ]
    bars += _dropped(raw, bars)
    return VendorReply(
        symbol=symbol,
        bars=sorted(bar for bar in bars if start <= bar.timestamp < end),
        splits=[Split(day, ratio) for day, ratio in _events(frame["Stock Splits"])],
        dividends=[Dividend(day, amount) for day, amount in _events(frame["Dividends"])],
        source=state.source,
        first_trade=_first_trade(state.chart),
    )


def _first_trade(chart: bytes) -> datetime | None:
    """The first instant of trading that a chart tells; None where it tells none that can be read."""
    stamp = json.loads(chart)["chart"]["result"][0].get("meta", {}).get("firstTradeDate")
    try:
        return None if isinstance(stamp, bool) else datetime.fromtimestamp(stamp, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _raw_bars(chart: bytes) -> list[Bar]:
    """The bars of a chart that yfinance could read, in the vendor's own order, NaN for null."""
    result = json.loads(chart)["chart"]["result"][0]
    quote = result["indicators"]["quote"][0]
    columns = (quote[name] for name in ("open", "high", "low", "close", "volume"))
    return [
        Bar(
            datetime.fromtimestamp(at, UTC),
            *(math.nan if value is None else float(value) for value in values),
        )
        for at, *values in zip(result["timestamp"], *columns, strict=True)
    ]


def _dropped(raw: list[Bar], kept: list[Bar]) -> list[Bar]:
    """What yfinance dropped without a word: a second bar of the same hour, and bars outside trading hours.

    The row of the running moment, which it merges into the running bar, is on no half hour.
    """
    seen = {bar.timestamp: bar for bar in kept}
    first: dict[datetime, Bar] = {}
    dropped = []
    for bar in raw:
        is_second = first.setdefault(bar.timestamp, bar) != bar and not _same(first[bar.timestamp], bar)
        is_hourly = bar.timestamp.minute == 30 and bar.timestamp.second == 0
        if is_second or (is_hourly and bar.timestamp not in seen):
            dropped.append(bar)
    return dropped


def _same(one: Bar, other: Bar) -> bool:
    return all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(one[1:], other[1:], strict=True))


def _events(column: Any) -> list[tuple[Any, float]]:
    """The (New York date, value) pairs of an events column, which is 0 where nothing happened."""
    return [(stamp.tz_convert(NEW_YORK).date(), float(value)) for stamp, value in column[column > 0].items()]
