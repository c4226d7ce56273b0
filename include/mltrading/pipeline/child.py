"""The life of the processes that a run forks: their limits, their work, their answers.

A symbol's process does its work and ends. Where the work is a LastingWork, the process does one symbol after
the other, and has what could crash, hang or fill its memory done apart: in a process that it forks itself.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import signal
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import psycopg

from include.mltrading.errors import MLTradingError
from include.mltrading.pipeline.linux import PR_SET_PDEATHSIG, prctl
from include.mltrading.store.connection import database_errors
from include.mltrading.store.ledger import Used

STARTED = b"S"
EXIT_TERMINATED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class Limits:
    """What one symbol's process may use.

    seconds: from the moment the work says that it has started (connected). startup_seconds: until then.
    cpu_seconds: processor time. memory_mb: allocations beyond what it had mapped before.
    """

    seconds: float
    startup_seconds: float
    cpu_seconds: int
    memory_mb: int


Work = Callable[[str, Callable[[], None]], int]
Answer = dict[str, Any]


class LastingWork(ABC):
    """Work on one symbol after the other in the same process, which keeps what is dear to open."""

    @abstractmethod
    def __call__(self, symbol: str, started: Callable[[], None]) -> int:
        """As any Work; the next symbol may come after an error, too."""

    @abstractmethod
    def close(self) -> None:
        """There is no further symbol."""


class EndedBadly(Exception):
    """What was done apart did not come to its end. answer: how it ended instead."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer["error"])
        self.answer = answer


def be_child(symbol: str, work: Work, limits: Limits, channel: int, parent: int) -> NoReturn:
    """The child's whole life; leaves through os._exit, so that nothing of the runner's is flushed twice.

    channel: a socket. Answers go there, a line each, and a LastingWork's next symbols come from there, the
    last one empty.
    """

    def serve() -> int:
        _limit(limits)
        return work(symbol, lambda: _send(channel, STARTED))

    status = 1
    try:
        _separate(parent)
        while symbol:
            answer = _answer(serve)
            _send(channel, json.dumps(answer).encode() + b"\n")
            status = 0 if answer["status"] == "ok" else 1
            if not isinstance(work, LastingWork):
                break
            symbol = os.read(channel, 256).decode().strip()
        if isinstance(work, LastingWork):
            work.close()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def apart(function: Callable[[], None]) -> Used:
    """Call the function in a forked process, which ends with it; returns what that process used.

    It holds no descriptor but those of its output and can open none: it has no connection, no file and no
    network, and what it inherits of credentials in its memory leads nowhere. Its limits are what is left of
    this process's own. Memory that it shall fill for this process has to be shared. Raises EndedBadly when it
    crashed, filled its memory, or the function raised.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    parent, left = os.getpid(), _processor_time_left()
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb", buffering=0) as answers:
        with os.fdopen(write_end, "wb", buffering=0):
            pid = os.fork()
            if pid == 0:
                try:
                    _separate(parent)
                    resource.setrlimit(resource.RLIMIT_CPU, left)
                    _close_all_but(write_end, sys.stdout.fileno(), sys.stderr.fileno())
                    _send(write_end, json.dumps(_answer(function)).encode())
                    sys.stdout.flush()
                    sys.stderr.flush()
                finally:
                    os._exit(0)
        _, wait_status, usage = os.wait4(pid, 0)
        os.set_blocking(read_end, False)  # what it has left behind may hold the other end
        content = answers.read() if wait_status == 0 else None
    used = Used(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
    answer = json.loads(content) if content else ended(wait_status)
    if answer["status"] != "ok":
        raise EndedBadly(answer | used._asdict())
    return used


def ended(wait_status: int) -> Answer:
    """What the end of a process says that has not answered."""
    if os.WIFSIGNALED(wait_status):
        number = os.WTERMSIG(wait_status)
        if number == signal.SIGXCPU:
            return {"status": "timeout", "error": "used up its processor time; look at its bars for damage"}
        hint = "; the kernel may have been out of memory" if number == signal.SIGKILL else ""
        return {"status": "crashed", "error": f"ended by signal {signal.Signals(number).name}{hint}"}
    return {"status": "crashed", "error": f"ended with exit code {os.WEXITSTATUS(wait_status)} and no answer"}


def _separate(parent: int) -> None:
    """Lead a session of one's own, and end with the process that has forked this one."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.setsid()
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(EXIT_TERMINATED)


def _close_all_but(*descriptors: int) -> None:
    """Keep these, and open no other ever."""
    for path in Path("/proc/self/fd").iterdir():
        if (other := int(path.name)) not in descriptors:
            with contextlib.suppress(OSError):  # that of the list itself
                os.close(other)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def _answer(function: Callable[[], int | None]) -> Answer:
    """How the call ended, and what it used."""
    before = _processor_time()
    answer: Answer
    try:
        answer = {"status": "ok", "rows": function()}
    except MemoryError:
        answer = {"status": "out_of_memory", "error": "needs more memory"}  # the runner knows how much it had
    except EndedBadly as end:
        answer = end.answer
    except (MLTradingError, psycopg.Error) as raised:
        error = raised if isinstance(raised, MLTradingError) else database_errors(raised)
        answer = {"status": "error", "error": str(error), "exit_code": error.exit_code}
        answer |= {"hopeless": error.hopeless, "failure": type(error).__name__}
    except BaseException as error:
        traceback.print_exc()
        answer = {"status": "error", "error": f"{type(error).__name__}: {error}".splitlines()[0]}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Used(_processor_time() - before, peak)._asdict() | answer


def _processor_time() -> float:
    """Seconds that this process has used, and those that it has forked and outlived."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _limit(limits: Limits) -> None:
    """From now on; only the soft limits, which a LastingWork's next symbol moves."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    used = math.ceil(time.process_time())
    for kind, most in (
        # The soft limit sends SIGXCPU, which tells this end from the time-out's kill.
        (resource.RLIMIT_CPU, used + limits.cpu_seconds),
        (resource.RLIMIT_AS, mapped + limits.memory_mb * 1024 * 1024),
    ):
        resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))


def _processor_time_left() -> tuple[int, int]:
    """What a process that is forked now may use, as limits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    return (soft if soft == resource.RLIM_INFINITY else max(1, soft - int(time.process_time()))), hard


def _send(descriptor: int, content: bytes) -> None:
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
