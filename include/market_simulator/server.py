"""The HTTP server: Yahoo's paths, and `/_control/` for whoever drives it."""

from __future__ import annotations

import json
import re
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import AwareDatetime, ValidationError, validate_call

from include.market_simulator.chart import Window, chart_reply, read_window
from include.market_simulator.faults import ControlError, Seconds
from include.market_simulator.messages import Reply, Series, json_reply, status_reply
from include.market_simulator.prices import bars
from include.market_simulator.registry import Fault, FaultRegistry, change_reply, change_series
from include.market_simulator.statistics import Statistics

MARK = "X-Market-Data"
CHART_PATH = "/v8/finance/chart/"
CRUMB_PATH = "/v1/test/getcrumb"
CONTROL_PATH = "/_control/"
# Those that start with ZZ do not exist.
_SYMBOL = re.compile(r"(?!ZZ)[A-Z][A-Z0-9]{0,9}(-[A-Z]{1,2})?")
_COOKIE = "A3=simulated; Max-Age=31536000; Path=/; HttpOnly"


class MarketSimulator:
    """The simulator on a port of 127.0.0.1, served from threads between `with` and its end.

    seed: what the prices follow from. clock: the instant that is "now" to the server, None for the real one.
    port: 0 for any free one.
    """

    def __init__(self, *, seed: int = 7, clock: datetime | None = None, port: int = 0) -> None:
        self.seed = seed
        self._initial_clock = self._clock = clock
        self._latency = 0.0
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

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving, free the port and cut every open connection; further calls do nothing."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._thread = None
        self._server.server_close()
        self._server.cut_connections()

    # What can be set ----------------------------------------------------------------------------------

    def now(self) -> datetime:
        """The server's clock, UTC."""
        return (self._clock or datetime.now(UTC)).astimezone(UTC)

    @validate_call
    def set_clock(self, now: AwareDatetime | None) -> None:
        """Stop the clock at `now`, or let it follow the real one with None."""
        self._clock = now

    @validate_call
    def set_latency(self, seconds: Seconds) -> None:
        """Delay every answer of Yahoo's paths."""
        self._latency = seconds

    def fault(self, kind: str, **options: Any) -> None:
        """Let something go wrong; `faults` has the kinds and their options.

        Besides these options: symbol, only its requests, None for all; count, the next N requests, None until
        cleared; requests, chart (unless told otherwise), probe, cookie, crumb or any. Raises ControlError.
        """
        try:
            self._faults.add(kind, **options)
        except ValidationError as error:
            raise _control_error(error) from None

    def clear_faults(self) -> None:
        """Let everything go right again."""
        self._faults.clear()

    def statistics(self) -> dict[str, Any]:
        """See `Statistics.snapshot`."""
        return self._statistics.snapshot()

    def reset(self) -> None:
        """As it was at the start: clock, latency, faults, statistics."""
        self._clock = self._initial_clock
        self._latency = 0.0
        self._faults.clear()
        self._statistics.reset()

    def control(self, action: str, body: dict[str, Any]) -> Reply:
        """Obey a POST to `/_control/<action>`; ControlError says in one line why not."""
        actions: dict[str, Callable[..., None]] = {
            "clock": self.set_clock,
            "latency": self.set_latency,
            "fault": self.fault,
            "clear": self.clear_faults,
            "reset": self.reset,
        }
        if action not in actions:
            raise ControlError(f"no action {action!r}: choose from {', '.join(actions)}")
        try:
            actions[action](**body)
        except ValidationError as error:
            raise _control_error(error) from None
        except TypeError as error:
            raise ControlError(str(error)) from None
        return json_reply({"now": self.now().isoformat()})

    # Answers ------------------------------------------------------------------------------------------

    def answer(self, target: str) -> Reply:
        """Yahoo's answer to a request for `target` (path and query), faults and delays included."""
        parts = urlsplit(target)
        now = self.now()
        symbol = None
        window: Window | Reply | None = None
        if parts.path.startswith(CHART_PATH):
            symbol = unquote(parts.path.removeprefix(CHART_PATH)).upper()
            window = read_window(dict(parse_qsl(parts.query)), now)
            kind = "probe" if isinstance(window, Window) and window.is_probe else "chart"
        else:
            kind = {"/": "cookie", "": "cookie", CRUMB_PATH: "crumb"}.get(parts.path, "other")
        with self._statistics.request(kind, symbol):
            faults = self._faults.take(kind, symbol)
            if symbol is not None and window is not None:
                reply = self._chart(symbol, window, now, faults)
            else:
                reply = _page(kind)
            reply = change_reply(reply, faults)
            time.sleep(reply.delay + self._latency)
        self._statistics.answered(0 if reply.reset else reply.status)
        return replace(reply, headers={MARK: "simulated", **reply.headers})

    def _chart(self, symbol: str, window: Window | Reply, now: datetime, faults: list[Fault]) -> Reply:
        if not _SYMBOL.fullmatch(symbol):
            return status_reply(404)
        if isinstance(window, Reply):
            return window
        found = bars(self.seed, symbol, window.start, window.end, now=now)
        series = Series(symbol, window.start, window.end, now, tuple(found))
        return chart_reply(change_series(series, faults))


def _control_error(error: ValidationError) -> ControlError:
    """What pydantic says of the arguments of a call, in one line."""
    wrong = (
        f"{'.'.join(map(str, each['loc']))} is {each['input']!r}: {each['msg']}" for each in error.errors()
    )
    return ControlError("; ".join(wrong))


def _page(kind: str) -> Reply:
    if kind == "cookie":
        # Yahoo's own cookie host answers 404 too; the cookie is what counts.
        return Reply(404, b"", "text/html", {"Set-Cookie": _COOKIE})
    if kind == "crumb":
        return Reply(200, b"simulated", "text/plain;charset=utf-8")
    return json_reply(
        {"finance": {"result": None, "error": {"code": "Not Found", "description": "Not Found"}}}, 404
    )


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
        else:
            self._send(self._simulator.answer(self.path))

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            reply = self._simulator.control(
                self.path.removeprefix(CONTROL_PATH), json.loads(content or b"{}")
            )
        except ValueError as error:
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
