"""The simulator over real HTTP: Yahoo's paths, the control endpoints, its life as a process."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from include.market_simulator import MarketSimulator, bars

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
NOW = datetime(2025, 11, 28, 22, 0, tzinfo=UTC)
CHART = "/v8/finance/chart/AAPL?range=5d&interval=60m"
# yfinance as anyone would use it, with Yahoo's hosts swapped for the simulator's.
PLAIN_YFINANCE = """
import sys
from urllib.parse import urlsplit, urlunsplit
import yfinance
from curl_cffi.requests import Session
base = urlsplit(sys.argv[1])
class Redirected(Session):
    def request(self, method, url, **kwargs):
        assert urlsplit(url).hostname.endswith("yahoo.com")
        here = urlsplit(url)._replace(scheme="http", netloc=base.netloc)
        return super().request(method, urlunsplit(here), **kwargs)
yfinance.set_tz_cache_location(sys.argv[2])
ticker = yfinance.Ticker("AAPL", session=Redirected())
frame = ticker.history(interval="60m", start="2025-11-24", end="2025-11-29")
print(len(frame), frame.index[0].isoformat(), frame.index[-1].isoformat())
"""


@pytest.fixture
def simulator() -> Iterator[MarketSimulator]:
    with MarketSimulator(clock=NOW) as server:
        yield server


def get(simulator: MarketSimulator, path: str) -> tuple[int, Any, bytes]:
    try:
        with urlopen(simulator.url + path) as reply:  # noqa: S310
            return reply.status, reply.headers, reply.read()
    except HTTPError as error:
        return error.code, error.headers, error.read()


def post(simulator: MarketSimulator, action: str, body: bytes) -> tuple[int, str]:
    try:
        with urlopen(Request(f"{simulator.url}/_control/{action}", data=body)) as reply:  # noqa: S310
            return reply.status, reply.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def connection(simulator: MarketSimulator) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(simulator.url).netloc, timeout=10)


def closes(simulator: MarketSimulator, path: str = CHART) -> list[float]:
    body = get(simulator, path)[2]
    return json.loads(body)["chart"]["result"][0]["indicators"]["quote"][0]["close"]


@pytest.mark.parametrize(
    "path", ["/", "/v1/test/getcrumb", CHART, "/v8/finance/chart/ZZX?range=1d", "/nowhere"]
)
def test_every_reply_says_that_it_is_simulated(simulator: MarketSimulator, path: str) -> None:
    assert get(simulator, path)[1]["X-Market-Data"] == "simulated"


def test_plain_yfinance_gets_its_cookie_crumb_probe_and_chart(
    simulator: MarketSimulator, tmp_path: Path
) -> None:
    output = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PLAIN_YFINANCE, simulator.url, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    ).stdout
    assert output.split() == ["24", "2025-11-24T09:30:00-05:00", "2025-11-28T11:30:00-05:00"]
    kinds = simulator.statistics()["kinds"]
    assert {kind: kinds.get(kind) for kind in ("crumb", "probe", "chart")} == {
        "crumb": 1,
        "probe": 1,
        "chart": 1,
    }
    assert kinds["cookie"] >= 1


@pytest.mark.parametrize("symbol", ["ZZTOP", "nonsense!", "TOOLONGASYMBOL", "%27%3B%20DROP"])
def test_an_unknown_symbol_gets_yahoos_404(simulator: MarketSimulator, symbol: str) -> None:
    status, _, body = get(simulator, f"/v8/finance/chart/{symbol}?range=5d&interval=60m")
    assert status == 404
    assert json.loads(body)["chart"]["error"]["description"] == "No data found, symbol may be delisted"


def test_one_connection_serves_many_requests(simulator: MarketSimulator) -> None:
    client = connection(simulator)
    client.connect()
    port = client.sock.getsockname()
    for path in (CHART, "/v1/test/getcrumb", "/nowhere", CHART):
        client.request("GET", path)
        client.getresponse().read()
        assert client.sock is not None
        assert client.sock.getsockname() == port
    client.close()


def test_the_clock_is_set_over_http_and_put_back_by_reset(simulator: MarketSimulator) -> None:
    before = closes(simulator)
    assert post(simulator, "clock", b'{"now": "2025-11-25T11:00:00-05:00"}')[0] == 200
    assert len(closes(simulator, "/v8/finance/chart/AAPL?range=1d&interval=60m")) == 2
    assert post(simulator, "clock", b'{"now": null}')[0] == 200
    assert abs((simulator.now() - datetime.now(UTC)).total_seconds()) < 5
    assert post(simulator, "reset", b"")[0] == 200
    assert simulator.now() == NOW
    assert closes(simulator) == before


@pytest.mark.parametrize(
    ("action", "body", "words"),
    [
        ("clock", b'{"now": "2025-11-25T11:00:00"}', "now is '2025-11-25T11:00:00'"),
        ("clock", b"{}", "now"),
        ("latency", b'{"seconds": "long"}', "seconds is 'long'"),
        ("fault", b"{}", "'kind'"),
        ("fault", b'{"kind": "earthquake"}', "no fault 'earthquake'"),
        ("fault", b'{"kind": "status", "colour": 1}', "colour is 1"),
        ("fault", b"[1]", "must be a mapping"),
        ("fault", b"{", "Expecting property name"),
        ("explode", b"{}", "no action 'explode'"),
    ],
)
def test_a_wrong_control_request_is_a_400_of_one_line(
    simulator: MarketSimulator, action: str, body: bytes, words: str
) -> None:
    status, text = post(simulator, action, body)
    assert status == 400
    assert words in text
    assert text.count("\n") == 1
    assert closes(simulator)


def test_faults_come_and_go_over_http(simulator: MarketSimulator) -> None:
    body = {"kind": "status", "status": 429, "retry_after": 7, "symbol": "AAPL", "count": 1}
    assert post(simulator, "fault", json.dumps(body).encode())[0] == 200
    assert get(simulator, CHART.replace("AAPL", "MSFT"))[0] == 200
    status, headers, _ = get(simulator, CHART)
    assert (status, headers["Retry-After"]) == (429, "7")
    assert get(simulator, CHART)[0] == 200
    post(simulator, "fault", b'{"kind": "status", "status": 500, "requests": "any"}')
    assert [get(simulator, path)[0] for path in ("/", "/v1/test/getcrumb", CHART)] == [500, 500, 500]
    post(simulator, "clear", b"")
    assert get(simulator, CHART)[0] == 200


def test_a_reset_cuts_the_connection_without_an_answer(simulator: MarketSimulator) -> None:
    simulator.fault("reset", count=1)
    client = connection(simulator)
    client.request("GET", CHART)
    with pytest.raises(ConnectionResetError) as caught:
        client.getresponse()
    assert type(caught.value) is ConnectionResetError  # not its subclass for an orderly end
    assert closes(simulator)


def test_statistics_count_kinds_symbols_answers_rate_and_concurrency(simulator: MarketSimulator) -> None:
    post(simulator, "latency", b'{"seconds": 0.3}')
    paths = (
        [CHART] * 3 + [CHART.replace("AAPL", "MSFT")] * 2 + ["/v8/finance/chart/AAPL?range=1d&interval=1d"]
    )
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda path: get(simulator, path), paths))
    simulator.set_latency(0)
    time.sleep(1.1)
    get(simulator, "/v8/finance/chart/ZZX?range=5d&interval=60m")
    get(simulator, "/")
    statistics = json.loads(get(simulator, "/_control/statistics")[2])
    assert statistics == {
        "total": 8,
        "kinds": {"chart": 6, "probe": 1, "cookie": 1},
        "symbols": {"AAPL": 3, "MSFT": 2, "ZZX": 1},
        "statuses": {"200": 6, "404": 2},
        "peak_per_second": 6,
        "peak_concurrency": 6,
    }
    post(simulator, "reset", b"")
    assert simulator.statistics()["total"] == 0


def test_it_listens_on_127_0_0_1_alone(simulator: MarketSimulator) -> None:
    port = urlsplit(simulator.url).port
    assert port is not None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=5)


def test_closing_frees_the_port_and_cuts_open_connections() -> None:
    with MarketSimulator(clock=NOW) as simulator:
        client = connection(simulator)
        client.request("GET", CHART)
        client.getresponse().read()
        port = urlsplit(simulator.url).port
    assert client.sock is not None
    assert client.sock.recv(1) == b""
    client.close()
    assert port is not None
    with MarketSimulator(clock=NOW, port=port) as again:
        assert closes(again)


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "include.market_simulator", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_prints_its_address_serves_and_ends_cleanly(
    number: signal.Signals,
) -> None:
    process = start("--seed", "5", "--clock", NOW.isoformat())
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        with urlopen(f"{url}/v8/finance/chart/IBM?range=1d&interval=60m") as reply:  # noqa: S310
            quote = json.loads(reply.read())["chart"]["result"][0]["indicators"]["quote"][0]
        day = NOW.replace(hour=0)
        assert quote["close"] == [bar.close for bar in bars(5, "IBM", day, NOW)]
        process.send_signal(number)
        rest, errors = process.communicate(timeout=10)
        assert (process.returncode, rest, errors) == (0, "", "")
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--clock", "noon"),
        ("--clock", "2025-11-28T12:00:00"),
        ("--port", "99999"),
    ],
)
def test_a_wrong_argument_is_exit_2_and_names_it(arguments: tuple[str, str]) -> None:
    process = start(*arguments)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "Traceback" not in errors
    assert arguments[0] in errors.splitlines()[-1]


@pytest.mark.parametrize(
    ("module", "stranger"),
    [
        ("include.market_simulator", "include.mltrading"),
        ("include.mltrading.market.yahoo_client", "include.market_simulator"),
    ],
)
def test_simulator_and_product_know_nothing_of_each_other(module: str, stranger: str) -> None:
    code = f"import sys, {module}; print([name for name in sys.modules if name.startswith({stranger!r})])"
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout
    assert output.strip() == "[]"
