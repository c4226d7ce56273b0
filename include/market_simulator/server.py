"""The HTTP server: Yahoo's paths, and `/_control/` for whoever drives it."""

from __future__ import annotations

import json
import re
import socket
import struct
import sys
import time
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from types import TracebackType
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from include.market_simulator.chart import Window, chart_reply, read_window
from include.market_simulator.faults import ControlError, FaultRegistry, change_reply, change_series
from include.market_simulator.limit import RateLimit
from include.market_simulator.prices import bars
from include.market_simulator.reply import Reply, json_reply, not_found, status_reply
from include.market_simulator.series import Series
from include.market_simulator.statistics import Statistics

MARK = "X-Market-Data"
CHART_PATH = "/v8/finance/chart/"
CRUMB_PATH = "/v1/test/getcrumb"
CONTROL_PATH = "/_control/"
_SYMBOL = re.compile(r"[A-Z][A-Z0-9]{0,9}(-[A-Z]{1,2})?")
_COOKIE = "A3=simulated; Max-Age=31536000; Path=/; HttpOnly"


class MarketSimulator:
    """The simulator on a port of 127.0.0.1, served from threads between `with` and its end.

    seed: what the prices follow from. clock: the instant that is "now" to the server, None for the real one.
    symbols: names that exist although they start with ZZ. port: 0 for any free one.
    """

    def __init__(
        self,
        *,
        seed: int = 7,
        clock: datetime | None = None,
        symbols: Collection[str] = (),
        port: int = 0,
    ) -> None:
        self.seed = seed
        self._initial_clock = _aware(clock)
        self._clock = self._initial_clock
        self._symbols = frozenset(symbol.upper().replace(".", "-") for symbol in symbols)
        self._latency = 0.0
        self._limit: RateLimit | None = None
        self._faults = FaultRegistry()
        self._statistics = Statistics()
        self._server = _Server(("127.0.0.1", port), self)
        self._thread: Thread | None = None
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> MarketSimulator:
        # The poll interval is how long closing may take.
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving, free the port and cut every open connection; further calls do nothing."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._thread = None
        self._server.server_close()
        self._server.cut_connections()

    def now(self) -> datetime:
        """The server's clock, UTC."""
        return self._clock or datetime.now(UTC)

    def set_clock(self, now: datetime | None) -> None:
        """Stop the clock at `now` (timezone-aware), or let it follow the real one with None."""
        self._clock = _aware(now)

    def set_latency(self, seconds: float) -> None:
        """Delay every answer of Yahoo's paths."""
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= 3600:
            raise ControlError(f"seconds is {seconds!r}: give a number from 0 to 3600")
        self._latency = float(seconds)

    def set_limit(self, per_second: float | None) -> None:
        """Answer 429 to what exceeds so many requests a second; None lifts the limit."""
        number = isinstance(per_second, int | float) and not isinstance(per_second, bool)
        if per_second is not None and not (number and 0 < per_second < float("inf")):
            raise ControlError(f"per_second is {per_second!r}: give a number above 0, or null")
        self._limit = None if per_second is None else RateLimit(per_second)

    def fault(
        self,
        kind: str,
        *,
        symbol: str | None = None,
        count: int | None = None,
        requests: str = "chart",
        **options: Any,
    ) -> None:
        """Let something go wrong; `faults` has the kinds and their options.

        symbol: only its requests, None for all. count: the next N requests, None until cleared.
        requests: chart, probe, cookie, crumb or any. Raises ControlError.
        """
        self._faults.add(kind, symbol=symbol, count=count, requests=requests, options=options)

    def clear_faults(self) -> None:
        """Let everything go right again."""
        self._faults.clear()

    def statistics(self) -> dict[str, Any]:
        """See `Statistics.snapshot`."""
        return self._statistics.snapshot()

    def reset(self) -> None:
        """As it was at the start: clock, latency, limit, faults, statistics."""
        self._clock = self._initial_clock
        self._latency = 0.0
        self._limit = None
        self._faults.clear()
        self._statistics.reset()

    def knows(self, symbol: str) -> bool:
        """Whether `symbol` exists here."""
        return symbol in self._symbols or bool(_SYMBOL.fullmatch(symbol) and not symbol.startswith("ZZ"))

    def answer(self, target: str) -> Reply:
        """Yahoo's answer to a request for `target` (path and query), faults and delays included."""
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query))
        now = self.now()
        symbol = None
        window: Window | Reply | None = None
        if parts.path.startswith(CHART_PATH):
            symbol = unquote(parts.path.removeprefix(CHART_PATH)).upper()
            window = read_window(query, now)
            kind = "probe" if isinstance(window, Window) and window.is_probe else "chart"
        else:
            kind = {"/": "cookie", "": "cookie", CRUMB_PATH: "crumb"}.get(parts.path, "other")
        with self._statistics.request(kind, symbol):
            if self._limit is not None and not self._limit.lets_through():
                reply = status_reply(429, None)
            else:
                faults = self._faults.take(kind, symbol)
                if symbol is not None and window is not None:
                    reply = self._chart(symbol, window, now, faults)
                else:
                    reply = _page(kind)
                reply = change_reply(reply, faults)
            time.sleep(reply.delay + self._latency)
        self._statistics.answered(0 if reply.reset else reply.status)
        return replace(reply, headers={MARK: "simulated", **reply.headers})

    def _chart(self, symbol: str, window: Window | Reply, now: datetime, faults: list[Any]) -> Reply:
        if not self.knows(symbol):
            return not_found()
        if isinstance(window, Reply):
            return window
        found = bars(self.seed, symbol, window.start, window.end, now=now)
        series = Series(symbol, window.start, window.end, now, tuple(found))
        return chart_reply(change_series(series, faults), window)

    def control(self, action: str, body: dict[str, Any]) -> Reply:
        """Obey a POST to `/_control/<action>`; ControlError says in one line why not."""
        if action == "clock":
            _only(body, "now")
            self.set_clock(_instant(body["now"]))
        elif action == "latency":
            _only(body, "seconds")
            self.set_latency(body["seconds"])
        elif action == "limit":
            _only(body, "per_second")
            self.set_limit(body["per_second"])
        elif action == "fault":
            if not isinstance(body.get("kind"), str):
                raise ControlError("kind is missing: name the fault")
            self.fault(**body)
        elif action == "clear":
            self.clear_faults()
        elif action == "reset":
            self.reset()
        else:
            raise ControlError(
                f"no action {action!r}: choose from clock, latency, limit, fault, clear, reset"
            )
        return json_reply({"now": self.now().isoformat()})


def _page(kind: str) -> Reply:
    if kind == "cookie":
        # Yahoo's own cookie host answers 404 too; the cookie is what counts.
        return Reply(404, b"", "text/html", {"Set-Cookie": _COOKIE})
    if kind == "crumb":
        return Reply(200, b"simulated", "text/plain;charset=utf-8")
    return json_reply(
        {"finance": {"result": None, "error": {"code": "Not Found", "description": "Not Found"}}}, 404
    )


def _aware(clock: datetime | None) -> datetime | None:
    if clock is None:
        return None
    if clock.tzinfo is None:
        raise ControlError(f"the clock {clock.isoformat()} has no time zone: add one, such as +00:00")
    return clock.astimezone(UTC)


def _instant(value: object) -> datetime | None:
    """A clock setting as sent: an ISO instant with its time zone, or None."""
    if value is None:
        return None
    try:
        return _aware(datetime.fromisoformat(cast(str, value)))
    except (TypeError, ValueError) as error:
        if isinstance(error, ControlError):
            raise
        raise ControlError(f"now is {value!r}: give an ISO instant with its time zone, or null") from None


def _only(body: dict[str, Any], name: str) -> None:
    if set(body) != {name}:
        raise ControlError(f"the keys are {sorted(body)}: give {name!r} and nothing else")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a kept-alive connection would hold it up
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], simulator: MarketSimulator) -> None:
        self.simulator = simulator
        self._open: set[socket.socket] = set()
        self._lock = Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer.server_bind looks the host's name up, which can take seconds.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        linger = request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
        if struct.unpack("ii", linger)[0]:
            self.close_request(request)  # without the FIN of a shutdown, closing sends a reset
        else:
            super().shutdown_request(request)

    def cut_connections(self) -> None:
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # the client was faster

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "MarketSimulator"
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet for head and body

    @property
    def _simulator(self) -> MarketSimulator:
        return cast(_Server, self.server).simulator

    def do_GET(self) -> None:
        if self.path == CONTROL_PATH + "statistics":
            self._send(json_reply(self._simulator.statistics()))
        elif self.path.startswith(CONTROL_PATH):
            self._send(Reply(400, b"GET knows only /_control/statistics: send a POST\n", "text/plain"))
        else:
            self._send(self._simulator.answer(self.path))

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length") or "0"
        content = self.rfile.read(int(length) if length.isdecimal() else 0)
        if not self.path.startswith(CONTROL_PATH):
            self._send(self._simulator.answer(self.path))
            return
        try:
            body = json.loads(content or b"{}")
            if not isinstance(body, dict):
                raise ControlError("the body is no JSON object")
            reply = self._simulator.control(self.path.removeprefix(CONTROL_PATH), body)
        except (ValueError, TypeError) as error:
            reply = Reply(400, f"{' '.join(str(error).split())}\n".encode(), "text/plain;charset=utf-8")
        self._send(reply)

    def _send(self, reply: Reply) -> None:
        if reply.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet: the statistics count, and stdout belongs to the address."""
