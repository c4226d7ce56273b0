"""What is done apart from a process that lasts: it has nothing, and takes nobody along."""

from __future__ import annotations

import mmap
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from include.mltrading.pipeline.child import LastingWork, Limits, apart
from include.mltrading.pipeline.runner import run_isolated
from tests.left_behind import left_behind
from tests.unit.test_runner import MARK, start_runner

LIMITS = Limits(seconds=60, startup_seconds=60, cpu_seconds=20, memory_mb=64)


@pytest.fixture
def shared() -> Iterator[mmap.mmap]:
    """Memory for what a process that is done with wants to tell."""
    with mmap.mmap(-1, mmap.PAGESIZE) as memory:
        yield memory


def error_of(call: Callable[[], object]) -> str:
    try:
        call()
    except OSError as error:
        return error.strerror or ""
    return "none"


def test_it_has_no_connection_and_can_open_none(shared: mmap.mmap, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    (tmp_path / "secret").touch()

    def tell() -> None:
        told = [
            error_of(lambda: ours.send(b"Terminate")),
            error_of(socket.socket),
            error_of(socket.socketpair),
            error_of(os.pipe),
            error_of((tmp_path / "secret").open),
        ]
        shared.write("; ".join(told).encode())

    with ours, theirs:
        apart(tell)
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
        ours.send(b"still open")
        assert theirs.recv(100) == b"still open"
    refused = "Too many open files"
    assert shared[:].rstrip(b"\0").decode().split("; ") == ["Bad file descriptor", *[refused] * 4]


class Lasting(LastingWork):
    """Does everything apart, in one process that a symbol may kill; returns which symbol of its it is."""

    def __init__(self) -> None:
        self.symbols = 0

    def __call__(self, symbol: str, started: Callable[[], None]) -> int:
        def misbehave() -> None:
            match symbol:
                case "SEGFAULT":
                    os.kill(os.getpid(), signal.SIGSEGV)
                case "HOG":
                    hoard = [bytearray(1 << 20) for _ in range(100_000)]
                    del hoard
                case "LOOP":
                    while True:
                        pass
                case "EXIT":
                    os._exit(0)
                case "BROKEN":
                    raise ZeroDivisionError("by nought")
                case "CORE":
                    raise ValueError(resource.getrlimit(resource.RLIMIT_CORE)[1])
                case "PARENT":
                    os.kill(os.getppid(), signal.SIGKILL)
                    time.sleep(60)

        self.symbols += 1
        started()
        apart(misbehave)
        return self.symbols

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    ("symbol", "status", "error", "next_is"),
    [
        ("SEGFAULT", "crashed", "ended by signal SIGSEGV", 3),
        ("HOG", "out_of_memory", "needs more than 64 MB of memory", 3),
        ("EXIT", "crashed", "ended with exit code 0 and no answer", 3),
        ("BROKEN", "error", "ZeroDivisionError: by nought", 3),
        ("CORE", "error", "ValueError: 0", 3),
        ("PARENT", "crashed", "ended by signal SIGKILL; the kernel may have been out of memory", 1),
    ],
)
def test_a_bad_end_costs_its_symbol_and_the_process_goes_on_or_is_replaced(
    symbol: str, status: str, error: str, next_is: int
) -> None:
    outcomes = run_isolated(["A", symbol, "B", "C"], Lasting(), limits=LIMITS, concurrency=1)
    assert [(outcome.status, outcome.error) for outcome in outcomes] == [
        ("ok", None), (status, error), ("ok", None), ("ok", None),
    ]  # fmt: skip
    assert [outcome.rows_written for outcome in outcomes] == [1, 0, next_is, next_is + 1]
    assert all(outcome.cpu_seconds > 0 and outcome.peak_memory_bytes > 1_000_000 for outcome in outcomes)


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        (Limits(60, 60, 1, 64), "used up its processor time; look at its bars for damage"),
        (Limits(1, 60, 60, 64), "took longer than 1 s; look at its bars, or raise the limit"),
    ],
)
def test_each_symbol_has_its_time_and_no_more(limits: Limits, error: str) -> None:
    outcomes = run_isolated(["A", "LOOP", "B", "LOOP", "C"], Lasting(), limits=limits, concurrency=1)
    assert [(outcome.symbol, outcome.status, outcome.error) for outcome in outcomes] == [
        ("A", "ok", None), ("LOOP", "timeout", error), ("B", "ok", None), ("LOOP", "timeout", error),
        ("C", "ok", None),
    ]  # fmt: skip


RUNNER = """
import sys, time
from include.mltrading.pipeline.child import LastingWork, Limits, apart
from include.mltrading.pipeline.runner import run_isolated
class Work(LastingWork):
    def __call__(self, symbol, started):
        started()
        def compute():
            print(symbol, "works", flush=True)
            time.sleep(600)
        apart(compute)
        return 0
    def close(self):
        pass
run_isolated(["A", "B"], Work(), limits=Limits(60, 60, 60, 64), concurrency=1,
             on_outcome=lambda outcome: print(outcome.symbol, outcome.status, flush=True))
"""


def test_a_runner_that_is_told_to_stop_leaves_nothing_at_any_level() -> None:
    with start_runner(RUNNER) as runner:
        runner.terminate()
        assert runner.stdout is not None
        assert runner.stdout.read().splitlines() == ["A cancelled", "B cancelled"]
        assert runner.wait(10) == 143
    assert left_behind(MARK) == []


def test_a_runner_that_is_killed_takes_all_levels_with_it() -> None:
    with start_runner(RUNNER) as runner:
        assert len(left_behind(MARK)) == 3
        runner.kill()
        runner.wait(10)
    deadline = time.monotonic() + 30
    while left_behind(MARK) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left_behind(MARK) == []
