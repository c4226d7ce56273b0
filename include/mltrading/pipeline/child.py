"""The life of one symbol's process: its limits, its work, its answer to the runner."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import psycopg

from include.mltrading.errors import MLTradingError
from include.mltrading.pipeline.linux import PR_SET_PDEATHSIG, prctl
from include.mltrading.store.connection import database_errors

STARTED = b"S"
EXIT_TERMINATED = 128 + signal.SIGTERM


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


Work = Callable[[str, Callable[[], None]], int]


def be_child(symbol: str, work: Work, limits: Limits, pipe: int, parent: int) -> NoReturn:
    """The child's whole life; leaves through os._exit, so that nothing of the runner's is flushed twice."""
    answer: dict[str, Any]
    status = 0
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(EXIT_TERMINATED)
        _limit(limits)
        rows = work(symbol, lambda: _send(pipe, STARTED))
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
