"""The processes that compute features: what they ask of the database, and what their deaths leave."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from include.market_simulator import bars as simulated_bars
from include.mltrading.cli.task import feature_limits
from include.mltrading.configuration.settings import PROJECT_ROOT, Settings
from include.mltrading.features.compute import compute
from include.mltrading.market.bars import Bar
from include.mltrading.pipeline.batch import run_batch
from include.mltrading.pipeline.features import FeatureComputation
from include.mltrading.pipeline.linux import parent_of
from include.mltrading.pipeline.run import Run
from include.mltrading.pipeline.steps import FEATURES
from include.mltrading.store import feature_table, ledger, market_data
from include.mltrading.store.connection import Connection, connect
from tests.round_trips import counted

pytestmark = pytest.mark.integration

END = datetime(2026, 1, 21, 16, tzinfo=UTC)
RUN = Run("dag", "run", 1, END)
BARS = [Bar(*bar) for bar in simulated_bars(7, "AAPL", END - timedelta(days=180), END)]
SYMBOLS = [f"S{number:02}" for number in range(24)]


@pytest.fixture
def connection(settings: Settings) -> Iterator[Connection]:
    with connect(settings) as opened:
        yield opened


def store(connection: Connection, bars: list[Bar], *symbols: str) -> None:
    for symbol in symbols:
        market_data.upsert_bars(
            connection, symbol, [(bar, True) for bar in bars], source="simulated", correlation_id="x"
        )


def test_a_symbol_takes_at_most_four_round_trips(
    settings: Settings, connection: Connection, tmp_path: Path
) -> None:
    def round_trips(*, full: bool = False) -> int:
        ledger.claim(connection, RUN.attempt(FEATURES), ["S00"])
        with closing(FeatureComputation(settings, RUN, full=full)) as computation:
            computation._connection = connect(settings)
            with counted(computation._connection, tmp_path) as trips:
                computation("S00", lambda: None)
        return trips[0]

    store(connection, BARS[:700], "S00")
    assert round_trips() == 4  # all bars are new
    store(connection, BARS[700:721], "S00")
    assert round_trips() == 4
    revised = BARS[710]._replace(volume=BARS[710].volume + 1)
    store(connection, [revised, BARS[721]], "S00")
    assert round_trips() == 4
    assert round_trips() == 2  # nothing is stale
    used = "SELECT cpu_seconds, peak_memory_bytes FROM processing_history"
    assert connection.execute(used).fetchone() == (0, 0)  # so that no process computes
    assert round_trips(full=True) == 3  # and nothing changes
    connection.execute("DELETE FROM feature_engineered_data WHERE timestamp > %s", (BARS[700].timestamp,))
    assert round_trips(full=True) == 4


def log_ins(admin: psycopg.Connection[Any], database: str) -> int:
    """How often anybody has connected to the database, once all are gone: a server process counts then."""
    while admin.execute("SELECT FROM pg_stat_activity WHERE datname = %s", (database,)).rowcount:
        time.sleep(0.01)
    row = admin.execute("SELECT sessions FROM pg_stat_database WHERE datname = %s", (database,)).fetchone()
    assert row is not None
    return int(row[0])


def test_a_command_logs_in_five_times_at_most(
    database: str, settings: Settings, postgres: Any, cli: Callable[..., Any]
) -> None:
    with connect(settings) as connection:
        store(connection, BARS[:50], *SYMBOLS)
    name = database.rpartition("/")[2]
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as admin:
        before = log_ins(admin, name)
        finished = cli("features", "--json", "--symbols", ",".join(SYMBOLS), MLTRADING_DATABASE_URL=database)
        assert finished.code == 0
        assert sum(symbol["rows"] for symbol in finished.document["symbols"]) == 50 * len(SYMBOLS)
        assert log_ins(admin, name) - before <= 5


def test_a_lost_connection_costs_the_symbol_at_hand(settings: Settings, connection: Connection) -> None:
    store(connection, BARS[:50], *SYMBOLS[:5])
    connection.execute(
        "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$;"
        "CREATE TRIGGER lose BEFORE INSERT ON feature_engineered_data FOR EACH ROW"
        " WHEN (NEW.symbol = 'S01') EXECUTE FUNCTION lose()"
    )
    work, limits = FeatureComputation(settings, RUN), feature_limits(settings)
    outcomes = run_batch(settings, RUN, FEATURES, SYMBOLS[:5], work, limits=limits)
    assert [(outcome.symbol, outcome.status, outcome.rows_written) for outcome in outcomes] == [
        ("S00", "ok", 50), ("S01", "error", 0), ("S02", "ok", 50), ("S03", "ok", 50), ("S04", "ok", 50),
    ]  # fmt: skip
    assert (outcomes[1].exit_code, outcomes[1].failure) == (1, "DatabaseError")
    assert "terminating connection" in (outcomes[1].error or "")
    told = connection.execute("SELECT symbol, status FROM processing_history ORDER BY symbol").fetchall()
    assert told == [(outcome.symbol, outcome.status) for outcome in outcomes]


def test_a_symbol_that_is_not_in_the_ledger_is_not_written(
    settings: Settings, connection: Connection
) -> None:
    store(connection, BARS[:50], "S00")
    with (
        closing(FeatureComputation(settings, RUN)) as computation,
        pytest.raises(Exception, match=r"S00: its row in processing_history is gone"),
    ):
        computation("S00", lambda: None)
    assert connection.execute("SELECT FROM feature_engineered_data").rowcount == 0


def offspring(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        if parent_of(int(path.name)) == pid:
            found.append(int(path.name))
    return found


def victim(runner: int, generation: int, chosen: random.Random) -> int | None:
    """The runner, one of its slots, or what computes in one of them."""
    candidates = [runner]
    for _ in range(generation):
        candidates = [child for pid in candidates for child in offspring(pid)]
    return chosen.choice(candidates) if candidates else None


@pytest.mark.parametrize("seed", range(9))
def test_whoever_is_killed_leaves_each_symbol_as_before_or_done(
    database: str, connection: Connection, tmp_path: Path, seed: int
) -> None:
    chosen = random.Random(seed)  # noqa: S311 - a reproducible choice
    store(connection, BARS, *SYMBOLS)
    (tmp_path / "symbols.txt").write_text("\n".join(SYMBOLS))
    command = subprocess.Popen(
        [sys.executable, "-m", "include.mltrading", "features"],
        cwd=PROJECT_ROOT,
        env={
            **os.environ,
            "MLTRADING_DATABASE_URL": database,
            "MLTRADING_SYMBOLS_FILE": str(tmp_path / "symbols.txt"),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    count = "SELECT count(*) FROM processing_history WHERE status = 'ok'"
    done = chosen.randrange(len(SYMBOLS) - 6)
    while connection.execute(count).fetchone()[0] < done or not offspring(command.pid):  # type: ignore[index]
        assert command.poll() is None
    killed = False
    while not killed and command.poll() is None:
        pid = victim(command.pid, seed % 3, chosen)
        try:
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                killed = True
        except ProcessLookupError:
            pass
    command.wait()
    others = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    while connection.execute(others).rowcount:
        time.sleep(0.01)
    served = {
        row[0]: row[1:]
        for row in connection.execute(
            "SELECT symbol, stale_from IS NULL, feature_version IS NOT NULL,"
            " (SELECT count(*) FROM feature_engineered_data AS f WHERE f.symbol = s.symbol),"
            " (SELECT status FROM processing_history AS h WHERE h.symbol = s.symbol) FROM symbol_state AS s"
        )
    }
    for symbol, (current, versioned, rows, status) in served.items():
        whole = (True, True, len(BARS), "ok") if status == "ok" else (False, False, 0, status)
        assert (current, versioned, rows, status) == whole, symbol
    if killed and seed % 3 == 0:
        assert command.returncode == -signal.SIGKILL
    else:  # who had just ended cannot be killed any more
        assert [status for *_, status in served.values() if status != "ok"] in ([], ["crashed"])
    subprocess.run(command.args, cwd=PROJECT_ROOT, env=os.environ | {
        "MLTRADING_DATABASE_URL": database, "MLTRADING_SYMBOLS_FILE": str(tmp_path / "symbols.txt"),
    }, check=True, stdout=subprocess.DEVNULL)  # fmt: skip
    expected = compute(*np.ascontiguousarray(np.array([bar[1:] for bar in BARS], dtype=np.float64).T))
    for symbol in SYMBOLS:
        np.testing.assert_array_equal(feature_table.select_features(connection, symbol).values, expected)
