"""The HTTP session in which yfinance talks to Yahoo: it waits its turn, bounds and looks at every reply."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from curl_cffi import CurlOpt
from curl_cffi.requests import Response, Session
from yfinance import cache, exceptions  # type: ignore[import-untyped]

from include.mltrading.market.yahoo_answers import DENIED, Asked, UnusableError, check_chart

COOKIE_HOST = "fc.yahoo.com"
CHART_PATH = "/v8/finance/chart/"
CRUMB_PATH = "/v1/test/getcrumb"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Two years of hourly bars are 0.4 MB.
_LONGEST_BODY = 8_000_000
_MOST_REDIRECTS = 10
_CRUMB = re.compile(rb"[!-~]{1,100}")


class _CookieCache:
    """Stands in for yfinance's cookie file: the session itself remembers."""

    def lookup(self, strategy: str) -> None:
        return None

    def store(self, strategy: str, cookie: object) -> None:
        """Nothing to keep."""


cache._CookieCacheManager._Cookie_cache = _CookieCache()


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
        self.current: Asked | None = None

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
            raise UnusableError("no crumb was given to others either")  # the chart needs none
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
                raise UnusableError("no crumb was given")
        elif urlsplit(reply.url).path.startswith(CHART_PATH):
            # Any answer of the chart service, "no such symbol" too, shows that it takes the session.
            self.chart_was_served |= reply.status_code < 500 and reply.status_code not in (*DENIED, 429)
            check_chart(fetch, reply)
        return reply

    def _send(self, fetch: Asked, method: Any, url: str, *args: Any, **kwargs: Any) -> Response:
        """The reply to one request, after the redirects that stay with Yahoo; its `url` is Yahoo's."""
        for _ in range(_MOST_REDIRECTS):
            parts = urlsplit(url)
            if not self._is_allowed(parts):
                raise UnusableError(f"sends to {parts.netloc!r}, which is not Yahoo's")
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
                raise UnusableError("sent a cookie or header that is no text") from None
            reply.content, reply.url = bytes(body.content), url
            target = reply.headers.get("Location")
            if reply.status_code not in (301, 302, 303, 307, 308) or not target:
                return reply
            try:
                url = urljoin(url, target)
            except ValueError:
                raise UnusableError("redirects to no address") from None
            kwargs.pop("params", None)  # they are in the new address
            if reply.status_code < 307:
                method = "GET"
                kwargs.pop("data", None)
                kwargs.pop("json", None)
        raise UnusableError(f"redirects more than {_MOST_REDIRECTS} times")

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
            raise UnusableError(f"sent more than {_LONGEST_BODY // 1_000_000} MB")
        self.content += chunk
        return len(chunk)


def _is_yahoos(host: str | None) -> bool:
    return re.fullmatch(r"([a-z0-9-]+\.)*yahoo\.com", host or "") is not None
