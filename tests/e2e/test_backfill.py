"""`airflow dags backfill` from the project's shell, as the README tells it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow_lanes import on_2
from running_installation import (
    Installation,
    Shell,
    bars_until,
    installed,
    tick_of,
)

from include.mltrading.market.calendar import NEW_YORK, Session
from include.standalone.demo import COLLECTION, FEATURES
from include.standalone.runs import DagRun, newest_run

pytestmark = [pytest.mark.e2e, on_2]

SYMBOLS = ["AAPL", "IBM"]
HOURS = (10, 11)
# Both scheduled DAGs run for the ticks of Monday 9:00 to Friday 16:00 New York. A run's logical date is the
# tick before its own: Friday 16:00 for Monday's first.
WEEK_START, WEEK_END = "2026-11-13T16:00-05:00", "2026-11-20T15:30-05:00"


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory, new_state: Callable[[], Path]
) -> Iterator[Installation]:
    """Two symbols and no scheduler: a backfill runs its tasks itself."""
    with installed(new_state(), tmp_path_factory.mktemp("configuration"), SYMBOLS) as there:
        there.ask_airflow("known", COLLECTION)
        yield there


@pytest.fixture(scope="module")
def shell(installation: Installation) -> Shell:
    return Shell(installation.stack.state)


@pytest.fixture(scope="module")
def backfilled(installation: Installation, shell: Shell) -> Session:
    """A day two ticks of which both DAGs were backfilled for, into an empty database."""
    day = installation.next_day()
    for dag_id in (COLLECTION, FEATURES):
        done = shell(f"airflow dags backfill {_two_ticks(day)} {dag_id}")
        assert done.returncode == 0, done.stdout + done.stderr
    return day


def _two_ticks(day: Session) -> str:
    """The options for the ticks of 10:00 and 11:00 (features: 10:05 and 11:05)."""
    nine = tick_of(day, hour=9).astimezone(NEW_YORK)
    return f"-s {nine.isoformat()} -e {(nine + timedelta(minutes=90)).isoformat()}"


def _runs(installation: Installation, dag_id: str, day: Session) -> list[DagRun]:
    """The runs of a day's ticks, in order."""
    rows = installation.metadata.execute(
        "SELECT run_id FROM dag_run WHERE dag_id = %s AND data_interval_end BETWEEN %s AND %s ORDER BY 1",
        (dag_id, day.open - timedelta(hours=5), day.close + timedelta(hours=5)),
    ).fetchall()
    found = [newest_run(installation.metadata, dag_id, run_id=row[0]) for row in rows]
    return [run for run in found if run is not None]


def test_a_backfill_runs_every_tick_of_the_range_at_the_first_try(
    installation: Installation, backfilled: Session
) -> None:
    for dag_id in (COLLECTION, FEATURES):
        runs = _runs(installation, dag_id, backfilled)
        assert [run.tick for run in runs] == [tick_of(backfilled, dag_id, hour) for hour in HOURS]
        for run in runs:
            assert run.run_id.startswith("backfill__")
            assert run.state == "success"
            states = installation.states(run)
            mapped = "collect_symbol" if dag_id == COLLECTION else "compute_features"
            assert states.pop(mapped) == dict.fromkeys(SYMBOLS, "success")
            assert set(states.values()) == {"success"}


def test_a_backfill_stores_the_final_bars_of_each_tick_and_nothing_provisional(
    installation: Installation, backfilled: Session
) -> None:
    ticks = [tick_of(backfilled, hour=hour) for hour in HOURS]
    expected = bars_until(backfilled, ticks[1])
    assert bars_until(backfilled, ticks[0]) == []
    assert len(expected) == 1
    for symbol in SYMBOLS:
        assert installation.final_bars(symbol, backfilled.open) == expected
        assert installation.feature_rows(symbol, backfilled.open) == expected
    collections = _runs(installation, COLLECTION, backfilled)
    assert installation.ledger(collections[1]) == [
        ("collect_symbol", symbol, 1, "ok", 1, ticks[1]) for symbol in SYMBOLS
    ]
    assert installation.market.execute("SELECT count(*) FROM market_data WHERE NOT is_final").fetchone() == (
        0,
    )


def test_a_backfill_stores_exactly_the_rows_of_its_ticks_collected_one_by_one(
    installation: Installation, backfilled: Session
) -> None:
    stored = _rows_of(installation, backfilled)
    installation.forget_since(backfilled.open)
    for hour in HOURS:
        end = tick_of(backfilled, hour=hour).isoformat()
        installation.stack.run("-m", "include.mltrading", "collect", "--sessions", "3", "--end", end)
    installation.stack.run("-m", "include.mltrading", "features")
    assert [len(rows) for rows in stored] == [len(SYMBOLS)] * 2
    assert _rows_of(installation, backfilled) == stored


def _rows_of(installation: Installation, day: Session) -> list[list[Any]]:
    """All that is stored of a day's final bars and their features, but when it was written."""
    selects = (
        "SELECT to_jsonb(bar) - ARRAY['created_at', 'updated_at'] FROM market_data AS bar"
        " WHERE is_final AND timestamp BETWEEN %s AND %s ORDER BY symbol, timestamp",
        "SELECT to_jsonb(row) - ARRAY['created_at', 'updated_at'] FROM feature_engineered_data AS row"
        " WHERE timestamp BETWEEN %s AND %s ORDER BY symbol, timestamp",
    )
    return [installation.market.execute(select, (day.open, day.close)).fetchall() for select in selects]


def test_with_a_failing_symbol_every_tick_is_attempted_and_check_tells_the_true_result(
    installation: Installation, backfilled: Session, shell: Shell
) -> None:
    day = installation.next_day()
    with installation.fault("cut", "IBM"):
        done = shell(f"airflow dags backfill --continue-on-failures {_two_ticks(day)} {COLLECTION}")

    assert done.returncode == 0, done.stdout + done.stderr
    runs = _runs(installation, COLLECTION, day)
    assert [run.tick for run in runs] == [tick_of(day, hour=hour) for hour in HOURS]
    for run in runs:
        assert run.state == "failed"
        assert [row[1:4] for row in installation.ledger(run)] == [
            ("AAPL", 1, "ok"),
            ("IBM", 1, "error"),
        ]
    told = shell(f"python -m include.mltrading check --run {runs[0].run_id}")
    assert told.returncode == 1
    assert "IBM" in told.stdout
    assert "1 served, 1 failed" in told.stdout


def test_a_features_backfill_without_a_collection_computes_from_the_stored_bars(
    installation: Installation, backfilled: Session, shell: Shell
) -> None:
    day = installation.next_day()
    installation.stack.run("-m", "include.mltrading", "collect", "--end", day.close.isoformat())

    start = (tick_of(day, FEATURES) - timedelta(hours=1)).isoformat()
    done = shell(f"airflow dags backfill -s {start} -e {start} {FEATURES}")

    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = _runs(installation, FEATURES, day)
    assert run.state == "success"
    assert "computing from the bars that are stored" in installation.log(run, "wait_for_bars")
    for symbol in SYMBOLS:
        bars = installation.final_bars(symbol, day.open)
        assert len(bars) == 7
        assert installation.feature_rows(symbol, day.open) == bars


def test_the_range_for_a_trading_week_covers_exactly_its_forty_ticks(installation: Installation) -> None:
    days = [date(2026, 11, day) for day in range(16, 21)]
    for dag_id in (COLLECTION, FEATURES):
        expected = [tick_of(day, dag_id, hour).isoformat() for day in days for hour in range(9, 17)]
        assert len(expected) == 40
        assert installation.ask_airflow("ticks", dag_id, WEEK_START, WEEK_END) == expected
