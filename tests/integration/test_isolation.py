"""One bad symbol among four: the others are served, and ledger, log and exit code tell of the bad one."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import mmap
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray

from include.market_simulator import bars as simulated_bars
from include.mltrading.cli.task import feature_limits
from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import MLTradingError
from include.mltrading.features.compute import compute
from include.mltrading.market.bars import Bar
from include.mltrading.pipeline import features
from include.mltrading.pipeline.batch import run_batch, worst_exit_code
from include.mltrading.pipeline.features import FeatureComputation
from include.mltrading.pipeline.publish import tally, verify
from include.mltrading.pipeline.run import Run
from include.mltrading.pipeline.steps import FEATURES
from include.mltrading.store import ledger, market_data
from include.mltrading.store.connection import Connection, connect

pytestmark = pytest.mark.integration

END = datetime(2026, 1, 21, 16, tzinfo=UTC)
RUN = Run("dag", "run", 1, END)
SYMBOLS = [f"S{number}" for number in range(4)]
BAD = "S1"


@pytest.fixture
def connection(settings: Settings) -> Iterator[Connection]:
    """A market database with ten final bars of each symbol."""
    bars = [(Bar(*bar), True) for bar in simulated_bars(7, "AAPL", END - timedelta(days=10), END)][:10]
    with connect(settings) as opened:
        for symbol in SYMBOLS:
            market_data.upsert_bars(opened, symbol, bars, source="simulated", correlation_id="x")
        yield opened


def segfault() -> None:
    faulthandler.disable()  # its report would alarm whoever runs the tests
    ctypes.string_at(0)


def loop() -> None:
    while True:
        pass


def hog() -> None:
    hoard = []
    while True:
        hoard.append(bytearray(1 << 20))


def hang() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)


def grandchild() -> None:
    if os.fork() == 0:
        leave_behind()
    time.sleep(60)


def daemon() -> None:
    if os.fork() == 0:
        if os.fork() == 0:
            leave_behind()
        os._exit(0)
    # Its parent is gone at once: nothing in the process tree leads from the symbol to it any more.
    os.wait()
    while not born[0]:
        time.sleep(0.01)
    os._exit(5)


# A process cannot tell of itself but by memory: what computes a symbol can open nothing.
born = memoryview(mmap.mmap(-1, 8)).cast("q")


def leave_behind() -> None:
    """Be a process that ignores SIGTERM, in a session of its own."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    born[0] = os.getpid()
    time.sleep(60)
    os._exit(0)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@dataclass
class Noting(FeatureComputation):
    """Tells what is computed for which symbol. at_hand: the symbol."""

    at_hand: str = ""

    def __call__(self, symbol: str, started: Callable[[], None]) -> int:
        self.at_hand = symbol
        return super().__call__(symbol, started)


@pytest.mark.parametrize(
    ("misbehave", "status", "error", "seconds", "cpu_seconds"),
    [
        (segfault, "crashed", "SIGSEGV", 0, 0),
        (loop, "timeout", "processor time", 0.5, 0.5),
        (hog, "out_of_memory", "needs more than 64 MB", 0, 0),
        (hang, "timeout", "longer than 5 s", 5, 0),
        (grandchild, "timeout", "longer than 5 s", 5, 0),
        (daemon, "crashed", "exit code 5", 0, 0),
    ],
)
def test_a_bad_symbol_is_recorded_and_the_others_are_served(
    settings: Settings,
    connection: Connection,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    misbehave: Callable[[], None],
    status: str,
    error: str,
    seconds: float,
    cpu_seconds: float,
) -> None:
    work = Noting(settings, RUN)
    born[0] = 0

    def compute_badly(*bars: NDArray[np.float64]) -> NDArray[np.float64]:
        if work.at_hand == BAD:
            misbehave()
        return compute(*bars)

    monkeypatch.setattr(features, "compute", compute_badly)
    # A loop must run into the other limit, also where the machine is busy with something else.
    clock = 60 if misbehave is loop else 5
    limits = feature_limits(
        replace(settings, symbol_seconds=clock, symbol_cpu_seconds=1, symbol_memory_mb=64)
    )
    with caplog.at_level(logging.ERROR):
        outcomes = run_batch(settings, RUN, FEATURES, SYMBOLS, work, limits=limits, concurrency=2)

    assert (born[0] != 0) == (misbehave in (grandchild, daemon))
    assert not born[0] or not is_alive(born[0])
    served = {symbol for symbol in SYMBOLS if symbol != BAD}
    rows = {
        row[0]: row[1:]
        for row in connection.execute(
            "SELECT symbol, status, error, rows_written, cpu_seconds, peak_memory_bytes,"
            " extract(epoch FROM finished_at - started_at)::float8 FROM processing_history"
        )
    }
    assert {symbol for symbol, row in rows.items() if row[0] == "ok" and row[2] == 10} == served
    bad_status, bad_error, bad_rows, bad_cpu, bad_memory, bad_seconds = rows[BAD]
    assert (bad_status, bad_rows) == (status, None)
    assert error in bad_error
    assert bad_cpu >= cpu_seconds
    assert bad_memory > 1_000_000
    assert bad_seconds >= seconds
    [told] = [record.getMessage() for record in caplog.records]
    assert told == f"{BAD}: {status}: {bad_error}"
    assert worst_exit_code(outcomes) == 1
    assert tally(settings, RUN, FEATURES, SYMBOLS).failed == {BAD: f"{status}: {bad_error}"}
    with pytest.raises(MLTradingError, match=rf"3 of 4 .*{BAD} \({status}"):
        verify(settings, RUN, [FEATURES], SYMBOLS)
    stored = connection.execute("SELECT DISTINCT symbol FROM feature_engineered_data").fetchall()
    assert {symbol for (symbol,) in stored} == served
    # No lock, no open transaction, no connection of the bad symbol stays behind.
    others = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND state <> 'idle'"
    ).fetchone()
    assert others == (0,)
    # The next try does what is left, and only that.
    monkeypatch.undo()
    again = replace(RUN, try_number=2)
    retried = run_batch(
        settings, again, FEATURES, SYMBOLS, FeatureComputation(settings, again), limits=limits
    )
    assert [(outcome.symbol, outcome.status, outcome.rows_written) for outcome in retried] == [
        (BAD, "ok", 10)
    ]


def test_the_duration_of_a_bad_symbol_is_its_own_and_not_that_of_the_batch(
    settings: Settings, connection: Connection
) -> None:
    attempt = RUN.attempt(FEATURES)
    ledger.claim(connection, attempt, [BAD])
    connection.execute("UPDATE processing_history SET started_at = started_at - interval '1 hour'")
    ledger.fail(connection, attempt, BAD, "timeout", "too slow", 2.5, 1.0, 1)
    row = connection.execute(
        "SELECT extract(epoch FROM finished_at - started_at)::float8 FROM processing_history"
    ).fetchone()
    assert row == (pytest.approx(2.5, abs=0.001),)
