"""The isolated runner: symbols in forked processes, with limits, and nothing of them left behind.

The runner imports what the work needs once; every child starts from there in about a millisecond. A child
leads a session of its own, dies with the runner (parent-death signal), and may use only so much time, CPU
and memory for a symbol. It ends with its symbol, or, where the work is a LastingWork, when none is left; one
that dies before is replaced. The runner is a subreaper: whatever a child started and left behind comes to the
runner, which kills it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from include.mltrading.pipeline.child import (
    EXIT_TERMINATED,
    STARTED,
    Answer,
    LastingWork,
    Limits,
    Work,
    be_child,
    ended,
)
from include.mltrading.pipeline.linux import (
    PR_SET_CHILD_SUBREAPER,
    children,
    kill_group,
    kill_leftovers,
    prctl,
)
from include.mltrading.store.ledger import Used

_CANCELLED = "the task was told to stop"


@dataclass(frozen=True)
class Outcome:
    """How one symbol's process ended.

    status: as in processing_history. error: one line, None when ok. exit_code: 0 for ok, 2 where trying again
    without a change cannot help, 75 where the rate limit was in the way, else 1. failure: the name of the
    error's class.
    """

    symbol: str
    status: str
    rows_written: int
    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    error: str | None
    exit_code: int
    hopeless: bool = False
    failure: str | None = None


class Terminated(SystemExit):
    """The runner was told to stop; its children are gone and recorded before this leaves."""

    def __init__(self) -> None:
        super().__init__(EXIT_TERMINATED)


@dataclass
class _Child:
    """A process. symbol: the one that it works on, None when it may end. channel: to and from it."""

    symbol: str | None
    pid: int
    pidfd: int
    channel: int
    begun: float
    deadline: float
    received: bytes = b""
    started: bool = False
    verdict: tuple[str, str] | None = None


def run_isolated(
    symbols: Sequence[str],
    work: Work,
    *,
    limits: Limits,
    concurrency: int,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Call work(symbol, started) for each symbol, in `concurrency` processes at a time.

    Each process does one symbol; of a LastingWork, one after the other. The work calls started() once it is
    connected, and returns the rows it wrote; an MLTradingError becomes the symbol's error, so does one of the
    database, and any other exception with its traceback on stderr. One symbol's end never touches another's,
    nor does a fault of the runner itself at one. On SIGTERM every child is killed, reported as cancelled, and
    Terminated is raised.
    """
    batch = _Batch(symbols, work, limits, concurrency, on_outcome)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    # What is alive now is never garbage; without this a collection in a child would copy its pages.
    gc.collect()
    gc.freeze()
    with _sigterm_raises(), batch.selector:
        try:
            batch.work_through()
        except Terminated:
            batch.cancel()
            raise
        finally:
            batch.kill_all()
    return batch.outcomes


class _Batch:
    """The symbols of one call of run_isolated: those that wait, those that run, the outcomes."""

    def __init__(
        self,
        symbols: Sequence[str],
        work: Work,
        limits: Limits,
        concurrency: int,
        on_outcome: Callable[[Outcome], None],
    ) -> None:
        self.outcomes: list[Outcome] = []
        self.selector = selectors.DefaultSelector()
        self._waiting = deque(symbols)
        self._running: dict[int, _Child] = {}
        self._work, self._limits, self._concurrency, self._on_outcome = work, limits, concurrency, on_outcome
        # Children that the process had before are somebody else's business.
        self._foreign = set(children())

    def work_through(self) -> None:
        """Until nothing waits or runs."""
        while self._waiting or self._running:
            while self._waiting and len(self._running) < self._concurrency:
                self._start(self._waiting.popleft())
            # Without a child, since the last could not be started, nothing would ever be ready.
            for key, _ in self.selector.select(_time_left(self._running.values())) if self._running else []:
                child: _Child = key.data
                if child.pid not in self._running:
                    continue  # finished by an event before this one: its descriptors are closed
                if key.fd == child.channel:
                    self._receive(child)
                else:
                    self._finish(child)
            for child in self._running.values():
                if child.verdict is None and time.monotonic() >= child.deadline:
                    child.verdict = ("timeout", _timeout_text(child, self._limits))
                    kill_group(child.pid)

    def cancel(self) -> None:
        """End and report what runs, report what waits."""
        for child in self._running.values():
            child.verdict = ("cancelled", _CANCELLED)
            kill_group(child.pid)
        for child in list(self._running.values()):
            self._finish(child)
        for symbol in self._waiting:
            self._on_outcome(Outcome(symbol, "cancelled", 0, 0.0, 0.0, 0, _CANCELLED, 1))

    def kill_all(self) -> None:
        """Leave no process; costs nothing where none is left."""
        for child in self._running.values():
            kill_group(child.pid)
        with contextlib.suppress(OSError):
            kill_leftovers(self._foreign)

    def _tell(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self._on_outcome(outcome)

    def _start(self, symbol: str) -> None:
        try:
            child = _fork(symbol, self._work, self._limits)
        except Exception as error:
            self._tell(Outcome(symbol, "error", 0, 0.0, 0.0, 0, _fault_text(error), 1))
            return
        self._running[child.pid] = child
        try:
            self.selector.register(child.channel, selectors.EVENT_READ, child)
            self.selector.register(child.pidfd, selectors.EVENT_READ, child)
        except Exception as error:
            self._give_up(child, error)

    def _receive(self, child: _Child) -> None:
        try:
            if not _receive(child, self._limits):
                self.selector.unregister(child.channel)
            elif isinstance(self._work, LastingWork) and child.received.endswith(b"\n") and not child.verdict:
                self._go_on(child)
        except Exception as error:
            self._give_up(child, error)

    def _go_on(self, child: _Child) -> None:
        """Take the answer of a process that lasts, and give it the next symbol."""
        outcome = _outcome(child, _answer(child, 0, self._limits))
        if outcome.status != "ok":
            kill_leftovers(set(self._running) | self._foreign)
        child.symbol = None
        self._tell(outcome)
        child.symbol = self._waiting.popleft() if self._waiting else None
        child.received, child.started = b"", False
        child.begun = time.monotonic()
        child.deadline = child.begun + self._limits.startup_seconds
        with contextlib.suppress(ConnectionError):  # that it is dead, its pidfd tells
            os.write(child.channel, f"{child.symbol or ''}\n".encode())

    def _give_up(self, child: _Child, error: Exception) -> None:
        child.verdict = child.verdict or ("error", _fault_text(error))
        kill_group(child.pid)
        self._finish(child)

    def _finish(self, child: _Child) -> None:
        del self._running[child.pid]
        for descriptor in (child.pidfd, child.channel):
            with contextlib.suppress(KeyError):
                self.selector.unregister(descriptor)
        answer = _collect(child, self._limits, set(self._running), self._foreign)
        if child.symbol is not None:
            self._tell(_outcome(child, answer))


def _time_left(children: Iterable[_Child]) -> float | None:
    """Seconds until the first deadline; None when only deaths are waited for."""
    deadlines = [child.deadline for child in children if child.verdict is None]
    return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None


def _fork(symbol: str, work: Work, limits: Limits) -> _Child:
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pid = os.fork()
        if pid == 0:
            ours.close()
            be_child(symbol, work, limits, theirs.fileno(), parent)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            kill_group(pid)
            os.waitpid(pid, 0)
            raise
        now = time.monotonic()
        return _Child(symbol, pid, pidfd, ours.detach(), now, now + limits.startup_seconds)


def _receive(child: _Child, limits: Limits) -> bool:
    """Take what the child sent; False when it has closed its end."""
    try:
        content = os.read(child.channel, 65536)
    except ConnectionResetError:  # it has died before it read its next symbol
        return False
    child.received += content
    if not child.started and child.received.startswith(STARTED):
        child.started = True
        if child.verdict is None:
            child.deadline = time.monotonic() + limits.seconds
    return bool(content)


def _collect(child: _Child, limits: Limits, others: set[int], foreign: set[int]) -> Answer:
    """Reap a finished child and everything it left behind; returns how it ended, and what it used."""
    wait_status, used = 0, Used(0.0, 0)
    try:
        _, wait_status, usage = os.wait4(child.pid, 0)
        used = Used(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
        os.set_blocking(child.channel, False)
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while content := os.read(child.channel, 65536):
                child.received += content
        if wait_status != 0 or child.verdict is not None or not others:
            # A walk through all processes costs milliseconds: after a good end it can wait for the last.
            kill_leftovers(others | foreign)
    except Exception as error:
        child.verdict = child.verdict or ("error", _fault_text(error))
    finally:
        for descriptor in (child.pidfd, child.channel):
            with contextlib.suppress(OSError):
                os.close(descriptor)
    return used._asdict() | _answer(child, wait_status, limits)


def _answer(child: _Child, wait_status: int, limits: Limits) -> Answer:
    content = child.received.removeprefix(STARTED)
    # Data that was committed before the limit struck is there, whatever came after.
    with contextlib.suppress(json.JSONDecodeError):
        answer: Answer = json.loads(content)
        if answer["status"] == "out_of_memory":
            answer["error"] = f"needs more than {limits.memory_mb} MB of memory"
        if answer["status"] == "ok" or child.verdict is None:
            return answer
    if child.verdict is not None:
        status, error = child.verdict
        return {"status": status, "error": error}
    return ended(wait_status)


def _outcome(child: _Child, answer: Answer) -> Outcome:
    return Outcome(
        symbol=child.symbol or "",
        status=answer["status"],
        rows_written=answer.get("rows", 0),
        seconds=time.monotonic() - child.begun,
        cpu_seconds=answer["cpu_seconds"],
        peak_memory_bytes=answer["peak_memory_bytes"],
        error=answer.get("error"),
        exit_code=answer.get("exit_code", 0 if answer["status"] == "ok" else 1),
        hopeless=answer.get("hopeless", False),
        failure=answer.get("failure"),
    )


def _timeout_text(child: _Child, limits: Limits) -> str:
    if child.started:
        return f"took longer than {limits.seconds:g} s; look at its bars, or raise the limit"
    return f"was not connected within {limits.startup_seconds:g} s"


def _fault_text(error: Exception) -> str:
    """What a fault of the runner, to be called where it is handled, leaves in the symbol's outcome."""
    traceback.print_exc()
    return f"the runner itself failed at it ({type(error).__name__}: {error}); run it again".splitlines()[0]


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> NoReturn:
        # `timeout` and the process group both pass a signal on: only the first counts.
        for other in (signal.SIGTERM, signal.SIGINT):
            signal.signal(other, signal.SIG_IGN)
        raise Terminated

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
