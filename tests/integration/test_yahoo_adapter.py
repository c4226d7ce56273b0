"""The Yahoo adapter: the real yfinance over real HTTP against the market simulator."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import isnan
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import pytest

from include.market_simulator import MarketSimulator, bars
from include.mltrading.errors import (
    AccessDeniedError,
    MalformedReplyError,
    NoBarsError,
    RateLimitedError,
    SymbolNotFoundError,
    UnfitReplyError,
    UsageError,
    YahooError,
    YahooUnreachableError,
)
from include.mltrading.market.bars import Bar
from include.mltrading.market.yahoo import Dividend, Split, VendorReply, VendorSession, fetch_hourly
from include.mltrading.market.yahoo_answers import _seconds

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
NEW_YORK = ZoneInfo("America/New_York")
NOW = datetime(2026, 3, 31, 22, 0, tzinfo=UTC)
MONDAY = datetime(2026, 3, 23, tzinfo=UTC)


@pytest.fixture
def simulator() -> Iterator[MarketSimulator]:
    with MarketSimulator(clock=NOW) as server:
        yield server


def fetch(
    simulator: Any, symbol: str = "AAPL", start: datetime = MONDAY, days: int = 5, **options: Any
) -> VendorReply:
    return fetch_hourly(symbol, start, start + timedelta(days=days), base_url=simulator.url, **options)


def run_python(code: str, *arguments: str, **environment: str) -> str:
    """stdout of `code` in a fresh interpreter with no environment but PATH and `environment`."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={"PATH": "/usr/bin:/bin", **environment},
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("start", "days", "count", "first_hour"),
    [
        (datetime(2026, 3, 23, tzinfo=UTC), 5, 35, 13),
        (datetime(2025, 11, 24, tzinfo=UTC), 5, 25, 14),
        (datetime(2026, 3, 9, tzinfo=UTC), 5, 35, 13),
        (datetime(2026, 3, 2, tzinfo=UTC), 12, 70, 14),
        (datetime(2025, 11, 3, tzinfo=UTC), 5, 35, 14),
        (datetime(2025, 10, 27, tzinfo=UTC), 12, 70, 13),
        (datetime(2026, 1, 19, tzinfo=UTC), 5, 28, 14),
        (datetime(2025, 4, 1, tzinfo=UTC), 364, 1741, 13),
    ],
    ids=[
        "normal week",
        "half-day week",
        "first summer-time week",
        "across the spring change",
        "first winter-time week",
        "across the autumn change",
        "holiday Monday",
        "a year",
    ],
)
def test_the_adapter_returns_exactly_the_simulators_bars(
    simulator: MarketSimulator, start: datetime, days: int, count: int, first_hour: int
) -> None:
    reply = fetch(simulator, start=start, days=days)
    assert reply.bars == bars(7, "AAPL", start, start + timedelta(days=days))
    assert len(reply.bars) == count
    assert reply.bars[0].timestamp.hour == first_hour
    assert all(type(bar) is Bar and bar.timestamp.tzinfo is UTC for bar in reply.bars)
    assert (reply.symbol, reply.source, reply.splits, reply.dividends) == ("AAPL", "simulated", [], [])


@pytest.mark.parametrize("minute", [0, 1, 17, 59])
def test_the_running_bar_comes_as_it_stands(simulator: MarketSimulator, minute: int) -> None:
    now = datetime(2026, 3, 27, 15, 30, 40, tzinfo=UTC) + timedelta(minutes=minute)
    simulator.set_clock(now)
    reply = fetch(simulator)
    assert reply.bars == bars(7, "AAPL", MONDAY, MONDAY + timedelta(days=5), now=now)
    assert reply.bars[-1].timestamp == now.replace(minute=30, second=0, hour=15)


def test_the_window_is_half_open(simulator: MarketSimulator) -> None:
    start = datetime(2026, 3, 23, 14, 30, tzinfo=UTC)
    reply = fetch_hourly("AAPL", start, start + timedelta(hours=2), base_url=simulator.url)
    assert [bar.timestamp for bar in reply.bars] == [start, start + timedelta(hours=1)]
    sliver = fetch_hourly("AAPL", start, start + timedelta(milliseconds=1500), base_url=simulator.url)
    assert sliver.bars == reply.bars[:1]
    # yfinance asks in whole seconds.
    late = fetch_hourly(
        "AAPL", start + timedelta(milliseconds=500), start + timedelta(hours=2), base_url=simulator.url
    )
    assert late.bars == reply.bars[1:]


def test_a_window_may_be_given_in_any_time_zone(simulator: MarketSimulator) -> None:
    start = datetime(2026, 3, 23, tzinfo=NEW_YORK)
    reply = fetch_hourly("AAPL", start, start + timedelta(days=1), base_url=simulator.url)
    assert [f"{bar.timestamp:%H:%M}" for bar in reply.bars][::6] == ["13:30", "19:30"]


def test_a_share_class_is_asked_for_with_a_dash(simulator: MarketSimulator) -> None:
    reply = fetch(simulator, "BRK.B")
    assert reply.symbol == "BRK.B"
    assert reply.bars == bars(7, "BRK-B", MONDAY, MONDAY + timedelta(days=5))
    assert simulator.statistics()["symbols"] == {"BRK-B": 1}


def test_a_row_off_the_grid_is_not_hidden(simulator: MarketSimulator) -> None:
    now = datetime(2026, 3, 27, 15, 30, 5, tzinfo=UTC)
    simulator.set_clock(now)
    simulator.fault("live_row", instead=True)
    *rest, last = fetch(simulator).bars
    assert rest == bars(7, "AAPL", MONDAY, now - timedelta(seconds=10))
    assert last.timestamp == now


@pytest.mark.parametrize("fields", ["open high low close volume", "open", "close volume", "volume"])
def test_missing_values_stay_missing(simulator: MarketSimulator, fields: str) -> None:
    simulator.fault("nan_rows", fields=fields, every=5)
    truth = bars(7, "AAPL", MONDAY, MONDAY + timedelta(days=5))
    for number, (true, bar) in enumerate(zip(truth, fetch(simulator).bars, strict=True), start=1):
        for name in true._fields:
            if number % 5 == 0 and name in fields.split():
                assert isnan(getattr(bar, name))
            else:
                assert getattr(bar, name) == getattr(true, name)


def test_a_live_row_comes_beside_the_running_bar_and_not_in_it(simulator: MarketSimulator) -> None:
    now = datetime(2026, 3, 27, 15, 45, 5, tzinfo=UTC)
    simulator.set_clock(now)
    simulator.fault("live_row")
    *rest, last = fetch(simulator).bars
    assert rest == bars(7, "AAPL", MONDAY, MONDAY + timedelta(days=5), now=now)
    assert last.timestamp == now


def test_a_live_row_after_the_end_is_left_out(simulator: MarketSimulator) -> None:
    simulator.set_clock(datetime(2026, 3, 27, 15, 30, 5, tzinfo=UTC))
    simulator.fault("live_row")
    end = datetime(2026, 3, 27, 15, 30, tzinfo=UTC)
    reply = fetch_hourly("AAPL", MONDAY, end, base_url=simulator.url)
    assert reply.bars == bars(7, "AAPL", MONDAY, end)


def test_splits_and_dividends_come_with_their_new_york_date(simulator: MarketSimulator) -> None:
    simulator.fault("split", ex_date="2026-03-25", ratio=4)
    simulator.fault("split", ex_date="2026-03-27", ratio=0.1, restated=False)
    simulator.fault("dividend", ex_date="2026-03-26", amount=0.26)
    reply = fetch(simulator)
    assert reply.splits == [Split(date(2026, 3, 25), 4.0), Split(date(2026, 3, 27), 0.1)]
    assert reply.dividends == [Dividend(date(2026, 3, 26), 0.26)]
    truth = bars(7, "AAPL", MONDAY, MONDAY + timedelta(days=5))
    assert reply.bars[0].close == pytest.approx(truth[0].close / 4, rel=1e-6)
    assert reply.bars[-1].close == pytest.approx(truth[-1].close / 4 * 10, rel=1e-6)


def test_a_first_fetch_makes_three_requests_and_a_later_one_makes_one(simulator: MarketSimulator) -> None:
    waits: list[int] = []
    counts = []
    for symbol in ("AAPL", "AAPL", "MSFT"):
        fetch(simulator, symbol, before_request=lambda: waits.append(1))
        counts.append(simulator.statistics()["total"])
    assert counts == [3, 4, 5]
    assert len(waits) == 5
    assert simulator.statistics()["kinds"] == {"cookie": 1, "crumb": 1, "chart": 3}


@pytest.mark.parametrize("fails_at", [1, 2, 3])
@pytest.mark.parametrize(
    "error", [RuntimeError("stop"), TimeoutError("no token"), ConnectionError("no database")]
)
def test_what_the_rate_limiter_raises_ends_the_fetch(
    simulator: MarketSimulator, fails_at: int, error: Exception
) -> None:
    calls = 0

    def before_request() -> None:
        nonlocal calls
        calls += 1
        if calls >= fails_at:
            raise error

    with pytest.raises(type(error)) as caught:
        fetch(simulator, before_request=before_request)
    assert caught.value is error
    assert calls == fails_at
    assert simulator.statistics()["total"] == fails_at - 1


@pytest.mark.parametrize(
    ("kind", "options", "expected", "words"),
    [
        ("status", {"status": 429}, RateLimitedError, "answered 429"),
        ("status", {"status": 404}, SymbolNotFoundError, "No data found, symbol may be delisted"),
        ("status", {"status": 500}, YahooUnreachableError, "answered HTTP 500"),
        ("status", {"status": 503}, YahooUnreachableError, "answered HTTP 503"),
        ("status", {"status": 403}, AccessDeniedError, "HTTP 403"),
        ("status", {"status": 410}, MalformedReplyError, "an error that is not Yahoo's"),
        ("empty", {}, NoBarsError, "has no bar there"),
        ("html", {}, MalformedReplyError, "cannot be read"),
        ("cut", {}, MalformedReplyError, "cannot be read"),
        ("reset", {}, YahooUnreachableError, "cannot be reached"),
    ],
)
def test_each_failure_is_told_apart_and_gone_with_its_cause(
    simulator: MarketSimulator, kind: str, options: dict[str, Any], expected: type[YahooError], words: str
) -> None:
    simulator.fault(kind, symbol="AAPL", **options)
    with pytest.raises(YahooError) as caught:
        fetch(simulator)
    assert type(caught.value) is expected
    text = str(caught.value)
    assert words in text
    assert text.startswith("AAPL from 2026-03-23T00:00:00Z to 2026-03-28T00:00:00Z: 127.0.0.1:")
    assert "; " in text
    assert "\n" not in text
    assert fetch(simulator, "MSFT").bars
    simulator.clear_faults()
    assert len(fetch(simulator).bars) == 35


@pytest.mark.parametrize("status", [404, 422, 429, 500])
def test_a_refusal_is_not_answered_with_more_requests(simulator: MarketSimulator, status: int) -> None:
    fetch(simulator)
    simulator.fault("status", status=status)
    before = simulator.statistics()["total"]
    with pytest.raises(YahooError):
        fetch(simulator)
    assert simulator.statistics()["total"] == before + 1


@pytest.mark.parametrize("seconds", [None, 0.0, 12.0])
def test_a_429_tells_how_long_to_wait(simulator: MarketSimulator, seconds: float | None) -> None:
    simulator.fault("status", status=429, **({} if seconds is None else {"retry_after": seconds}))
    with pytest.raises(RateLimitedError) as caught:
        fetch(simulator)
    assert caught.value.retry_after == seconds


def test_a_retry_after_date_is_understood() -> None:
    later = datetime.now(UTC) + timedelta(seconds=90)
    assert _seconds(format_datetime(later, usegmt=True)) == pytest.approx(90, abs=3)
    assert _seconds("soon") is None


def test_an_unknown_symbol_is_not_found(simulator: MarketSimulator) -> None:
    with pytest.raises(SymbolNotFoundError, match=r"ZZTOP .* knows no such symbol"):
        fetch(simulator, "ZZTOP")


@pytest.mark.parametrize("start", [datetime(2026, 3, 28, tzinfo=UTC), datetime(2025, 12, 25, tzinfo=UTC)])
def test_a_day_without_a_session_has_no_bars(simulator: MarketSimulator, start: datetime) -> None:
    with pytest.raises(NoBarsError, match="has no bar there"):
        fetch(simulator, start=start, days=1)


def test_a_window_older_than_730_days_is_refused_with_yahoos_reason(simulator: MarketSimulator) -> None:
    with pytest.raises(NoBarsError, match="must be within the last 730 days"):
        fetch(simulator, start=NOW - timedelta(days=740))


def test_a_stopped_server_is_unreachable() -> None:
    with MarketSimulator(clock=NOW) as simulator:
        pass
    with pytest.raises(YahooUnreachableError, match=r"cannot be reached .*MLTRADING_YAHOO_URL"):
        fetch(simulator)


def test_a_server_that_stops_between_two_fetches_is_unreachable() -> None:
    with MarketSimulator(clock=NOW) as simulator:
        fetch(simulator)
    with pytest.raises(YahooUnreachableError, match="cannot be reached"):
        fetch(simulator)


def test_a_slow_answer_runs_into_the_request_timeout(simulator: MarketSimulator) -> None:
    simulator.fault("slow", seconds=5.0)
    begin = time.monotonic()
    with pytest.raises(YahooUnreachableError, match="timed out"):
        fetch(simulator, request_timeout=0.3)
    assert time.monotonic() - begin < 5  # the answer would have come then


@pytest.mark.parametrize("kind", ["cookie", "crumb"])
@pytest.mark.parametrize(
    ("fault", "options"),
    [("status", {"status": 429}), ("status", {"status": 500}), ("html", {}), ("reset", {})],
)
def test_bars_come_without_cookie_or_crumb(
    simulator: MarketSimulator, kind: str, fault: str, options: dict[str, Any]
) -> None:
    simulator.fault(fault, requests=kind, **options)
    assert len(fetch(simulator).bars) == 35


@pytest.mark.parametrize("status", [429, 500])
def test_an_error_is_never_taken_for_the_crumb(simulator: MarketSimulator, status: int) -> None:
    simulator.fault("status", requests="crumb", status=status, count=1)
    fetch(simulator)
    fetch(simulator)
    fetch(simulator)
    assert simulator.statistics()["kinds"]["crumb"] == 2


def test_a_crumb_that_expired_is_renewed(simulator: MarketSimulator) -> None:
    fetch(simulator)
    simulator.fault("status", status=401, count=1)
    assert len(fetch(simulator).bars) == 35
    assert simulator.statistics()["kinds"]["crumb"] == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start": MONDAY, "end": MONDAY}, "is not before end"),
        ({"start": MONDAY.replace(tzinfo=None), "end": MONDAY}, "need a time zone"),
        ({"start": MONDAY, "end": NOW, "base_url": "localhost:80"}, "is no address"),
    ],
)
def test_a_wrong_argument_is_a_usage_error(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        fetch_hourly("AAPL", **options)


FETCH = """
import os, sys
from datetime import UTC, datetime
from include.mltrading.market.yahoo import fetch_hourly, preload
preload()
def fetch(symbol="AAPL"):
    day = datetime(2026, 3, 23, tzinfo=UTC)
    return len(fetch_hourly(symbol, day, day.replace(day=28), base_url=sys.argv[1]).bars)
"""


def test_a_forked_child_needs_no_cookie_or_crumb_of_its_own(simulator: MarketSimulator) -> None:
    code = """
assert fetch() == 35
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        os._exit(0 if fetch("MSFT") == 35 and fetch("IBM") == 35 else 1)
    children.append(child)
assert fetch() == 35
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
assert fetch() == 35
"""
    run_python(FETCH + code, simulator.url)
    assert simulator.statistics()["kinds"] == {"cookie": 1, "crumb": 1, "chart": 11}


def test_parallel_processes_share_no_file_and_leave_none(simulator: MarketSimulator, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    code = """
children = []
for _ in range(6):
    child = os.fork()
    if child == 0:
        os._exit(0 if fetch() == 35 else 1)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6
"""
    run_python(FETCH + code, simulator.url, **home)
    assert list(tmp_path.iterdir()) == []
    assert simulator.statistics()["symbols"] == {"AAPL": 6}


class _Answers(BaseHTTPRequestHandler):
    """Yahoo's paths with what a test gives in place of what Yahoo would: path -> status, headers, body."""

    answers: dict[str, tuple[int, dict[str, str], bytes]]
    seen: list[str]

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        self.seen.append(f"{self.command} {path}")
        status, headers, body = self.answers.get(f"{self.command} {path}") or self.answers.get(
            path, (404, {}, b"")
        )
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer

    def log_message(self, format: str, *args: object) -> None:
        pass


CHART = "/v8/finance/chart/AAPL"


@pytest.fixture
def yahoo(simulator: MarketSimulator) -> Iterator[Any]:
    """A server whose `answers` a test may change; it serves the simulator's chart of a day of AAPL."""
    begin = int(MONDAY.timestamp())
    chart = simulator.answer(f"{CHART}?period1={begin}&period2={begin + 86_400}&interval=60m").body
    answers = {CHART: (200, {}, chart), "/v1/test/getcrumb": (200, {}, b"Crumb01")}
    handler = type("Answers", (_Answers,), {"answers": answers, "seen": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.url = f"http://127.0.0.1:{server.server_address[1]}"  # type: ignore[attr-defined]
        server.answers, server.seen = answers, handler.seen  # type: ignore[attr-defined]
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


class _Store:
    """A session store that remembers what was done with it, and takes what a database takes."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.session: VendorSession | None = None

    def load(self) -> VendorSession | None:
        return None

    def save(self, session: VendorSession) -> None:
        text = f"{session.crumb or ''}{session.cookies}"
        assert text.isprintable()
        assert text.isascii()
        self.session = session
        self.done.append("save")

    def abandon(self) -> None:
        self.done.append("abandon")

    def discard(self, session: VendorSession) -> None:
        self.done.append("discard")


def test_the_consent_page_of_europe_is_answered_and_its_last_reply_is_the_chart(yahoo: Any) -> None:
    page = b'<form action="/v2/collectConsent" method="post"><input name="csrfToken" value="t"/></form>'
    chart = yahoo.answers[CHART]
    yahoo.answers[CHART] = (302, {"Location": "https://consent.yahoo.com/v2/collectConsent?s=1"}, b"")
    yahoo.answers["GET /v2/collectConsent"] = (200, {}, page)
    yahoo.answers["POST /v2/collectConsent"] = chart
    assert len(fetch(yahoo, days=1).bars) == 7
    yahoo.answers["POST /v2/collectConsent"] = (429, {"Retry-After": "7"}, b"")
    with pytest.raises(RateLimitedError, match="after 7 s"):
        fetch(yahoo, days=1)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((302, {"Location": "https://example.com/"}, b""), "sends to 'example.com', which is not Yahoo's"),
        ((302, {"Location": "https://yahoo.com.example.com/"}, b""), "which is not Yahoo's"),
        ((302, {"Location": "file:///etc/passwd"}, b""), "which is not Yahoo's"),
        ((302, {"Location": CHART}, b""), "redirects more than"),
        ((302, {}, b""), r"sent no chart \(HTTP 302\)"),
        ((200, {}, b"[" * 100_000), "RecursionError"),
        ((200, {}, b"x" * 9_000_000), "more than 8 MB"),
    ],
)
def test_a_reply_that_is_no_use_is_one_line(yahoo: Any, answer: Any, words: str) -> None:
    yahoo.answers[CHART] = answer
    with pytest.raises(MalformedReplyError, match=words) as caught:
        fetch(yahoo, days=1)
    assert str(caught.value).isprintable()


def test_a_text_from_outside_is_cut_and_printable(yahoo: Any) -> None:
    text = "\\ud800\\u0000" + 5_000_000 * "a"
    body = f'{{"chart": {{"result": null, "error": {{"description": "{text}"}}}}}}'.encode()
    yahoo.answers[CHART] = (400, {}, body)
    with pytest.raises(YahooError, match="refused") as caught:
        fetch(yahoo, days=1)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("status", [200, 403, 503])
def test_the_words_of_a_429_count_under_any_status(yahoo: Any, status: int) -> None:
    yahoo.answers[CHART] = (status, {}, b"Too Many Requests")
    with pytest.raises(RateLimitedError):
        fetch(yahoo, days=1)


@pytest.mark.parametrize("status", [401, 403, 999])
def test_a_denial_with_a_new_session_is_not_met_with_more_requests(yahoo: Any, status: int) -> None:
    yahoo.answers[CHART] = (status, {}, b"<html></html>")
    yahoo.answers["/"] = (404, {"Set-Cookie": "A3=x; Path=/"}, b"")
    with pytest.raises(AccessDeniedError, match=f"HTTP {status}"):
        fetch(yahoo, days=1)
    assert len(yahoo.seen) == 3


@pytest.mark.parametrize("crumb", [b"a\0b", b"\xff\xfe", b"", b"x" * 5000, b"<html></html>", b"two words"])
def test_an_odd_crumb_is_left_out_and_the_session_shared_without(
    yahoo: Any, crumb: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    yahoo.answers["/v1/test/getcrumb"] = (200, {}, crumb)
    yahoo.answers["/"] = (404, {"Set-Cookie": "A3=x; Path=/"}, b"")
    store = _Store()
    assert len(fetch(yahoo, days=1, sessions=store).bars) == 7
    assert "GET /v1/test/getcrumb" in yahoo.seen
    assert store.done == ["save"]
    assert store.session is not None
    assert store.session.crumb is None
    assert [cookie["value"] for cookie in store.session.cookies] == ["x"]
    assert "429" not in caplog.text


# The first is no text, the second is one that a database may not hold.
@pytest.mark.parametrize("cookie", ["\xe9\xff", "\xc3\xa9"])
def test_an_odd_cookie_is_left_out_and_the_session_shared_without(yahoo: Any, cookie: str) -> None:
    yahoo.answers["/"] = (404, {"Set-Cookie": f"A3={cookie}; Path=/"}, b"")
    store = _Store()
    assert len(fetch(yahoo, days=1, sessions=store).bars) == 7
    assert store.done == ["save"]
    assert store.session is not None
    assert store.session.cookies == ()


def test_a_reply_about_something_else_is_refused_with_its_own_words(yahoo: Any) -> None:
    status, headers, body = yahoo.answers[CHART]
    yahoo.answers[CHART] = (status, headers, body.replace(b'"EQUITY"', b'"FUTURE"'))
    with pytest.raises(UnfitReplyError, match="instrumentType 'FUTURE', not EQUITY or ETF") as caught:
        fetch(yahoo, days=1)
    assert caught.value.hopeless


class _Recorder(BaseHTTPRequestHandler):
    seen: list[str]

    def _record(self) -> None:
        self.seen.append(self.requestline)
        self.send_error(502)

    do_GET = do_POST = do_CONNECT = _record

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_nothing_leaves_the_machine(simulator: MarketSimulator) -> None:
    """Each libcurl request to another host would go through the environment's proxy, which listens here."""
    handler = type("Recorder", (_Recorder,), {"seen": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as proxy:
        Thread(target=proxy.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{proxy.server_address[1]}"
        simulator.fault("status", status=401, symbol="IBM")
        code = """
print(fetch(), fetch("BRK.B"))
for symbol in ("ZZTOP", "IBM"):
    try:
        fetch(symbol)
    except Exception as error:
        print(type(error).__name__)
"""
        variables = {
            name: url for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy")
        }
        output = run_python(FETCH + code, simulator.url, **variables)
        proxy.shutdown()
    assert output.split() == ["35", "35", "SymbolNotFoundError", "AccessDeniedError"]
    assert handler.seen == []  # type: ignore[attr-defined]


def test_importing_the_adapter_does_not_import_yfinance() -> None:
    code = """
import sys
from include.mltrading.market import yahoo
print("yfinance" in sys.modules)
yahoo.preload()
print("yfinance" in sys.modules)
"""
    assert run_python(code).split() == ["False", "True"]
