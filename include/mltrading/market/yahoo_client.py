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
from datetime import datetime

from curl_cffi.requests import Response
from yfinance import data  # type: ignore[import-untyped]

from include.mltrading.errors import AccessDeniedError, UnfitReplyError
from include.mltrading.market.calendar import NEW_YORK
from include.mltrading.market.yahoo import YAHOO_HOST, SessionStore, VendorReply, VendorSession, server
from include.mltrading.market.yahoo_answers import (
    DENIED,
    TOO_MANY,
    Asked,
    SessionRefusedError,
    check_chart,
    meaning_of,
)
from include.mltrading.market.yahoo_chart import UNREADABLE, Chart, read_chart
from include.mltrading.market.yahoo_session import CHART_PATH, YahooSession

_PRINTABLE = re.compile(r"[ -~]*")

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
        state = Asked(window, server(base_url), before_request, request_timeout, shared)
        return _fetch(symbol, start, end, session, state)

    if sessions is None:
        return attempt(None)
    shared = sessions.load()
    if shared is not None:
        _adopt(session, shared)
        try:
            return attempt(shared)
        except SessionRefusedError:
            sessions.discard(shared)
        shared = sessions.load()
        if shared is not None:  # somebody else was faster
            _adopt(session, shared)
            try:
                return attempt(shared)
            except SessionRefusedError:
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


def _fetch(symbol: str, start: datetime, end: datetime, session: YahooSession, state: Asked) -> VendorReply:
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
        check_chart(state, reply)  # of a consent page it is only the last reply that is the chart
        if reply.status_code != 200:
            raise state.denied() if reply.status_code in DENIED else state.malformed("sent no chart")
        chart = _read(state, reply, asked)
        session.chart_was_served = True
    except SessionRefusedError:
        raise
    except Exception as error:
        if state.refusal is not None:
            raise state.refusal from None
        meaning = meaning_of(state, error)
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


def _read(fetch: Asked, reply: Response, asked: str) -> Chart:
    """The chart in a reply with status 200; raises what else it says."""
    try:
        chart = read_chart(reply.content, asked)
    except UNREADABLE:
        if TOO_MANY in reply.content:
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
