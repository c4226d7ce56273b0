"""The isolated runner: a forked process for each symbol, with limits, and nothing of it left behind.

The runner imports what the work needs once; every child starts from there in about a millisecond. A child
leads a session of its own, dies with the runner (parent-death signal), and may use only so much time, CPU
and memory. The runner is a subreaper: whatever a child started and left behind comes to the runner, which
kills it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import selectors
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import psycopg

from include.mltrading.errors import MLTradingError
from include.mltrading.store.connection import database_errors

# include/uapi/linux/prctl.h
PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_LIBC = ctypes.CDLL(None, use_errno=True)

_STARTED = b"S"
_EXIT_TERMINATED = 128 + signal.SIGTERM
_CANCELLED = "the task was told to stop"


@dataclass(frozen=True)
class Limits:
    """What one symbol's process may use.

    seconds: from the moment the work says that it has started (connected). startup_seconds: until then.
    cpu_seconds: processor time. memory_mb: allocations beyond what the runner itself has mapped.
    """

    seconds: float
    startup_seconds: float
    cpu_seconds: int
    memory_mb: int


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


Work = Callable[[str, Callable[[], None]], int]


class Terminated(SystemExit):
    """The runner was told to stop; its children are gone and recorded before this leaves."""

    def __init__(self) -> None:
        super().__init__(_EXIT_TERMINATED)


@dataclass
class _Child:
    symbol: str
    pid: int
    pidfd: int
    pipe: int
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
    """Call work(symbol, started) in a process of its own for each symbol, `concurrency` at a time.

    The work calls started() once it is connected, and returns the rows it wrote; an MLTradingError becomes
    the symbol's error, so does one of the database, and any other exception with its traceback on stderr.
    One symbol's end never touches another's, nor does a fault of the runner itself at one. On SIGTERM every
    child is killed, reported as cancelled, and Terminated is raised.
    """
    outcomes: list[Outcome] = []
    waiting = deque(symbols)
    running: dict[int, _Child] = {}

    # Children that the process had before are somebody else's business.
    foreign = set(_children())

    def tell(outcome: Outcome) -> None:
        outcomes.append(outcome)
        on_outcome(outcome)

    def start(symbol: str) -> None:
        try:
            child = _fork(symbol, work, limits)
        except Exception as error:
            tell(Outcome(symbol, "error", 0, 0.0, 0.0, 0, _fault_text(error), 1))
            return
        running[child.pid] = child
        try:
            selector.register(child.pipe, selectors.EVENT_READ, child)
            selector.register(child.pidfd, selectors.EVENT_READ, child)
        except Exception as error:
            give_up(child, error)

    def receive(child: _Child) -> None:
        try:
            if not _receive(child, limits):
                selector.unregister(child.pipe)
        except Exception as error:
            give_up(child, error)

    def give_up(child: _Child, error: Exception) -> None:
        child.verdict = child.verdict or ("error", _fault_text(error))
        _kill(child.pid)
        finish(child)

    def finish(child: _Child) -> None:
        del running[child.pid]
        for descriptor in (child.pidfd, child.pipe):
            with contextlib.suppress(KeyError):
                selector.unregister(descriptor)
        tell(_collect(child, set(running), foreign))

    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # What is alive now is never garbage; without this a collection in a child would copy its pages.
    gc.collect()
    gc.freeze()
    with _sigterm_raises(), selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                while waiting and len(running) < concurrency:
                    start(waiting.popleft())
                # Without a child, since the last could not be started, nothing would ever be ready.
                for key, _ in selector.select(_time_left(running.values())) if running else []:
                    child: _Child = key.data
                    if child.pid not in running:
                        continue  # finished by an event before this one: its descriptors are closed
                    if key.fd == child.pipe:
                        receive(child)
                    else:
                        finish(child)
                for child in running.values():
                    if child.verdict is None and time.monotonic() >= child.deadline:
                        child.verdict = ("timeout", _timeout_text(child, limits))
                        _kill(child.pid)
        except Terminated:
            for child in running.values():
                child.verdict = ("cancelled", _CANCELLED)
                _kill(child.pid)
            for child in list(running.values()):
                finish(child)
            for symbol in waiting:
                on_outcome(Outcome(symbol, "cancelled", 0, 0.0, 0.0, 0, _CANCELLED, 1))
            raise
        finally:
            for child in running.values():
                _kill(child.pid)
            # Costs nothing where nothing is left.
            with contextlib.suppress(OSError):
                _kill_leftovers(foreign)
    return outcomes


def _time_left(children: Iterable[_Child]) -> float | None:
    """Seconds until the first deadline; None when only deaths are waited for."""
    deadlines = [child.deadline for child in children if child.verdict is None]
    return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None


def _fork(symbol: str, work: Work, limits: Limits) -> _Child:
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    read_end, write_end = os.pipe()
    try:
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            _be_child(symbol, work, limits, write_end, parent)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            _kill(pid)
            os.waitpid(pid, 0)
            raise
    except OSError:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    now = time.monotonic()
    return _Child(symbol, pid, pidfd, read_end, now, now + limits.startup_seconds)


def _be_child(symbol: str, work: Work, limits: Limits, pipe: int, parent: int) -> NoReturn:
    """The child's whole life; leaves through os._exit, so that nothing of the runner's is flushed twice."""
    answer: dict[str, Any]
    status = 0
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(_EXIT_TERMINATED)
        _limit(limits)
        rows = work(symbol, lambda: _send(pipe, _STARTED))
        answer = {"status": "ok", "rows": rows}
    except MemoryError:
        answer = {"status": "out_of_memory", "error": f"needs more than {limits.memory_mb} MB of memory"}
    except (MLTradingError, psycopg.Error) as raised:
        error = raised if isinstance(raised, MLTradingError) else database_errors(raised)
        answer = {"status": "error", "error": str(error), "exit_code": error.exit_code}
        answer |= {"hopeless": error.hopeless, "failure": type(error).__name__}
    except BaseException as error:
        traceback.print_exc()
        answer = {"status": "error", "error": f"{type(error).__name__}: {error}".splitlines()[0]}
        status = 1
    try:
        _send(pipe, json.dumps(answer).encode())
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _limit(limits: Limits) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Soft below hard: the first sends SIGXCPU, which tells this end from the time-out's kill.
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds + 5))
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = mapped + limits.memory_mb * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _send(pipe: int, content: bytes) -> None:
    with open(pipe, "wb", closefd=False) as file:
        file.write(content)


def _receive(child: _Child, limits: Limits) -> bool:
    """Take what the child sent; False when it has closed its end."""
    content = os.read(child.pipe, 65536)
    child.received += content
    if not child.started and child.received.startswith(_STARTED):
        child.started = True
        if child.verdict is None:
            child.deadline = time.monotonic() + limits.seconds
    return bool(content)


def _collect(child: _Child, others: set[int], foreign: set[int]) -> Outcome:
    """Reap a finished child and everything it left behind."""
    wait_status, cpu_seconds, peak_memory_bytes = 0, 0.0, 0
    try:
        _, wait_status, usage = os.wait4(child.pid, 0)
        cpu_seconds, peak_memory_bytes = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
        os.set_blocking(child.pipe, False)
        with contextlib.suppress(BlockingIOError):
            while content := os.read(child.pipe, 65536):
                child.received += content
        if wait_status != 0 or child.verdict is not None or not others:
            # A walk through all processes costs milliseconds: after a good end it can wait for the last.
            _kill_leftovers(others | foreign)
    except Exception as error:
        child.verdict = child.verdict or ("error", _fault_text(error))
    finally:
        for descriptor in (child.pidfd, child.pipe):
            with contextlib.suppress(OSError):
                os.close(descriptor)
    answer = _answer(child, wait_status)
    return Outcome(
        symbol=child.symbol,
        status=answer["status"],
        rows_written=answer.get("rows", 0),
        seconds=time.monotonic() - child.begun,
        cpu_seconds=cpu_seconds,
        peak_memory_bytes=peak_memory_bytes,
        error=answer.get("error"),
        exit_code=answer.get("exit_code", 0 if answer["status"] == "ok" else 1),
        hopeless=answer.get("hopeless", False),
        failure=answer.get("failure"),
    )


def _answer(child: _Child, wait_status: int) -> dict[str, Any]:
    content = child.received.removeprefix(_STARTED)
    if content:
        # Data that was committed before the limit struck is there, whatever came after.
        with contextlib.suppress(json.JSONDecodeError):
            answer: dict[str, Any] = json.loads(content)
            if answer["status"] == "ok" or child.verdict is None:
                return answer
    if child.verdict is not None:
        status, error = child.verdict
        return {"status": status, "error": error}
    if os.WIFSIGNALED(wait_status):
        number = os.WTERMSIG(wait_status)
        if number == signal.SIGXCPU:
            return {"status": "timeout", "error": "used up its processor time; look at its bars for damage"}
        hint = "; the kernel may have been out of memory" if number == signal.SIGKILL else ""
        return {"status": "crashed", "error": f"ended by signal {signal.Signals(number).name}{hint}"}
    return {"status": "crashed", "error": f"ended with exit code {os.WEXITSTATUS(wait_status)} and no answer"}


def _timeout_text(child: _Child, limits: Limits) -> str:
    if child.started:
        return f"took longer than {limits.seconds:g} s; look at its bars, or raise the limit"
    return f"was not connected within {limits.startup_seconds:g} s"


def _fault_text(error: Exception) -> str:
    """What a fault of the runner, to be called where it is handled, leaves in the symbol's outcome."""
    traceback.print_exc()
    return f"the runner itself failed at it ({type(error).__name__}: {error}); run it again".splitlines()[0]


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    # Before setsid() the child has no group of its own yet.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _kill_leftovers(ours: set[int]) -> None:
    """Kill what finished children left: as a subreaper's, orphans are the runner's own children now."""
    while orphans := [pid for pid in _children() if pid not in ours]:
        for pid in orphans:
            _kill(pid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _children() -> Iterator[int]:
    if not _has_children():
        return  # spares the walk through /proc
    me = os.getpid()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            pid = int(entry.name)
            if parent_of(pid) == me:
                yield pid


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def parent_of(pid: int) -> int:
    """The parent of a process; 0 when that process is gone."""
    try:
        # pid (name) state ppid ...; the name may hold anything, a parenthesis too
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def prctl(option: int, value: int) -> None:
    """Linux's prctl(2). Raises OSError."""
    if _LIBC.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


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
