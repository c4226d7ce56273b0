"""What the isolated runner promises, with real processes that misbehave for real."""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from include.mltrading.configuration.settings import PROJECT_ROOT
from include.mltrading.errors import MLTradingError, UsageError
from include.mltrading.pipeline import runner as isolated
from include.mltrading.pipeline.child import Limits
from include.mltrading.pipeline.runner import Outcome, run_isolated
from tests.left_behind import left_behind

# Generous to what ends by itself, also on a busy machine.
LIMITS = Limits(seconds=3.0, startup_seconds=4.0, cpu_seconds=20, memory_mb=64)
MARK = "left-behind-by-a-symbol"
GOOD = [f"GOOD{i}" for i in range(19)]


def misbehave(symbol: str, started: Callable[[], None]) -> int:
    if symbol == "SLOWSTART":
        time.sleep(60)
    started()
    match symbol:
        case "REFUSED":
            raise UsageError("REFUSED: correct the setting")
        case "FAILED":
            raise MLTradingError("FAILED: Yahoo is down")
        case "LOCKED":
            raise psycopg.errors.LockNotAvailable("canceling statement due to lock timeout\nCONTEXT: a lock")
        case "CANCELED":
            raise psycopg.errors.QueryCanceled(
                "canceling statement due to statement timeout\nCONTEXT: a query"
            )
        case "BROKEN":
            raise ZeroDivisionError("by nought")
        case "SEGFAULT":
            faulthandler.disable()  # its report would alarm whoever runs the tests
            ctypes.string_at(0)
        case "LOOP":
            while True:
                pass
        case "DEAF":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(60)
        case "HOG":
            hoard = [bytearray(1 << 20) for _ in range(100_000)]
            return len(hoard)
        case "EXIT":
            os._exit(3)
        case "DAEMON":
            # Leads a session of its own, ignores SIGTERM, and outlives its parent.
            subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    "import signal,time;signal.signal(15,1);time.sleep(60)",
                    MARK,
                ],
                start_new_session=True,
            )
            time.sleep(60)
        case "QUIET":
            subprocess.Popen(
                [sys.executable, "-c", "import time; time.sleep(60)", MARK], start_new_session=True
            )
    return 7


def only(symbol: str, limits: Limits = LIMITS) -> Outcome:
    [outcome] = run_isolated([symbol], misbehave, limits=limits, concurrency=1)
    return outcome


def test_a_good_symbol_tells_its_rows_and_what_it_used() -> None:
    outcome = only("GOOD")
    assert (outcome.status, outcome.rows_written, outcome.error, outcome.exit_code) == ("ok", 7, None, 0)
    assert 0 < outcome.seconds < 30
    assert outcome.cpu_seconds > 0
    assert outcome.peak_memory_bytes > 1_000_000


@pytest.mark.parametrize(
    ("symbol", "status", "error", "exit_code"),
    [
        ("REFUSED", "error", "REFUSED: correct the setting", 2),
        ("FAILED", "error", "FAILED: Yahoo is down", 1),
        ("BROKEN", "error", "ZeroDivisionError: by nought", 1),
        ("SEGFAULT", "crashed", "SIGSEGV", 1),
        ("LOOP", "timeout", "longer than 3 s", 1),
        ("DEAF", "timeout", "longer than 3 s", 1),
        ("DAEMON", "timeout", "longer than 3 s", 1),
        ("HOG", "out_of_memory", "64 MB", 1),
        ("EXIT", "crashed", "exit code 3", 1),
        ("SLOWSTART", "timeout", "not connected within 4 s", 1),
    ],
)
def test_each_bad_end_has_its_name_and_hurts_nobody_else(
    symbol: str, status: str, error: str, exit_code: int
) -> None:
    told: list[Outcome] = []
    outcomes = run_isolated(
        [*GOOD[:9], symbol, *GOOD[9:]], misbehave, limits=LIMITS, concurrency=2, on_outcome=told.append
    )
    by_symbol = {outcome.symbol: outcome for outcome in outcomes}
    assert told == outcomes
    assert [by_symbol[name].status for name in GOOD] == ["ok"] * 19
    assert by_symbol[symbol].status == status
    assert error in (by_symbol[symbol].error or "")
    assert by_symbol[symbol].exit_code == exit_code
    assert left_behind(MARK) == []


class DeathFirst(selectors.DefaultSelector):  # type: ignore[misc]
    """Reports a child's end ahead of what it wrote, together, as epoll may."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        def is_death(event: tuple[selectors.SelectorKey, int]) -> bool:
            return event[0].fd == event[0].data.pidfd

        events = super().select(timeout)
        while events and not any(map(is_death, events)):
            events = super().select(timeout)
        return sorted(events, key=is_death, reverse=True)


def test_an_event_of_a_finished_child_touches_no_closed_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selectors, "DefaultSelector", DeathFirst)
    outcomes = run_isolated(GOOD[:6], misbehave, limits=LIMITS, concurrency=2)
    assert [(outcome.status, outcome.rows_written) for outcome in outcomes] == [("ok", 7)] * 6


@pytest.mark.parametrize(
    "call",
    ["socketpair", "fork", "pidfd_open", "register", "read", "wait4", "set_blocking", "kill_leftovers"],
)
def test_a_fault_of_the_runner_costs_one_symbol_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    failed = []

    def once(*arguments: object, **options: object) -> object:
        if not failed:
            failed.append(call)
            raise OSError(errno.EMFILE, "Too many open files")
        return original(*arguments, **options)

    owner = {
        "socketpair": socket, "register": selectors.DefaultSelector, "kill_leftovers": isolated
    }.get(call, os)  # fmt: skip
    original = getattr(owner, call)
    monkeypatch.setattr(owner, call, once)
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    outcomes = run_isolated(["QUIET", *GOOD[:3]], misbehave, limits=LIMITS, concurrency=2)
    assert failed == [call]
    assert sorted(outcome.symbol for outcome in outcomes) == sorted(["QUIET", *GOOD[:3]])
    bad = [outcome for outcome in outcomes if outcome.status != "ok"]
    if call in ("socketpair", "fork", "pidfd_open"):
        assert len(bad) == 1
    else:  # what a symbol has answered by then holds
        assert len(bad) <= 1
    for outcome in bad:
        assert (outcome.status, outcome.exit_code) == ("error", 1)
        assert outcome.error == (
            "the runner itself failed at it (OSError: [Errno 24] Too many open files); run it again"
        )
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before
    assert left_behind(MARK) == []


@pytest.mark.parametrize("call", ["fork", "pidfd_open"])
def test_a_runner_that_can_start_nothing_ends(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*arguments: object) -> object:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, call, fail)
    outcomes = run_isolated(GOOD[:3], misbehave, limits=LIMITS, concurrency=2)
    assert [(outcome.symbol, outcome.status) for outcome in outcomes] == [
        (name, "error") for name in GOOD[:3]
    ]


@pytest.mark.parametrize(
    ("symbol", "why", "remedy"),
    [("LOCKED", "lock", "let it end, or end it"), ("CANCELED", "statement", "raise the statement_timeout")],
)
def test_a_database_error_is_the_symbols_error_in_one_line_with_its_remedy(
    capfd: pytest.CaptureFixture[str], symbol: str, why: str, remedy: str
) -> None:
    outcome = only(symbol)
    assert (outcome.status, outcome.exit_code, outcome.failure) == ("error", 1, "DatabaseError")
    error = outcome.error or ""
    assert error.startswith(f"the database failed: canceling statement due to {why} timeout")
    assert remedy in error
    assert "\n" not in error
    assert "Traceback" not in capfd.readouterr().err


def test_processor_time_is_limited_too() -> None:
    outcome = only("LOOP", Limits(seconds=30, startup_seconds=30, cpu_seconds=1, memory_mb=64))
    assert outcome.status == "timeout"
    assert "processor time" in (outcome.error or "")


def test_what_a_good_symbol_leaves_running_is_ended_too() -> None:
    assert only("QUIET").status == "ok"
    assert left_behind(MARK) == []


def test_what_the_process_had_started_before_is_left_alone() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as neighbour:
        only("DEAF")
        assert neighbour.poll() is None
        neighbour.kill()


def test_no_symbol_leaves_a_core_file() -> None:
    def core_limits(symbol: str, started: Callable[[], None]) -> int:
        started()
        return sum(resource.getrlimit(resource.RLIMIT_CORE))

    before = resource.getrlimit(resource.RLIMIT_CORE)
    [outcome] = run_isolated(["GOOD"], core_limits, limits=LIMITS, concurrency=1)
    assert (outcome.status, outcome.rows_written) == ("ok", 0)
    assert resource.getrlimit(resource.RLIMIT_CORE) == before


def test_no_symbol_writes_over_the_runner(capfd: pytest.CaptureFixture[str]) -> None:
    print("once", flush=True)
    only("GOOD")
    assert capfd.readouterr().out == "once\n"


def test_the_number_at_work_never_exceeds_the_concurrency(tmp_path: Path) -> None:
    working, met = tmp_path / "working", tmp_path / "met"
    working.mkdir()

    def note(symbol: str, started: Callable[[], None]) -> int:
        started()
        mark = working / symbol
        mark.touch()
        # On a busy machine the first would be done before the next is there.
        while len(list(working.iterdir())) < 3 and not met.exists():
            time.sleep(0.01)
        met.touch()
        time.sleep(0.05)
        at_work = len(list(working.iterdir()))
        mark.unlink()
        return at_work

    patient = Limits(seconds=60, startup_seconds=60, cpu_seconds=60, memory_mb=64)
    outcomes = run_isolated(GOOD, note, limits=patient, concurrency=3)
    assert max(outcome.rows_written for outcome in outcomes) == 3


RUNNER = """
import sys, time
from include.mltrading.pipeline.child import Limits
from include.mltrading.pipeline.runner import run_isolated
def work(symbol, started):
    started()
    print(symbol, "works", flush=True)
    time.sleep(60)
    return 0
run_isolated(["A", "B"], work, limits=Limits(60, 60, 60, 64), concurrency=1,
             on_outcome=lambda outcome: print(outcome.symbol, outcome.status, flush=True))
"""


def start_runner(program: str = RUNNER) -> subprocess.Popen[str]:
    runner = subprocess.Popen(
        [sys.executable, "-c", program, MARK],
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT_ROOT,
        env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT)},
    )
    assert runner.stdout is not None
    assert runner.stdout.readline() == "A works\n"
    return runner


def test_a_runner_that_is_told_to_stop_tells_of_every_symbol_and_leaves_nothing() -> None:
    with start_runner() as runner:
        runner.terminate()
        assert runner.stdout is not None
        assert runner.stdout.read().splitlines() == ["A cancelled", "B cancelled"]
        assert runner.wait(10) == 143
    assert left_behind(MARK) == []


def test_a_runner_that_is_killed_takes_its_children_with_it() -> None:
    with start_runner() as runner:
        runner.kill()
        runner.wait(10)
    deadline = time.monotonic() + 5
    while left_behind(MARK) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left_behind(MARK) == []
