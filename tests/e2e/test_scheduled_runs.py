"""Runs of the three DAGs through Airflow's own scheduler: their states, their record, what they store.

Runs of past ticks are queued here exactly as the scheduler would have created them, so that no test waits for
the clock; one test lets the scheduler create its own. What goes wrong or is repeated: test_run_states.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from alarmed import SYMBOLS
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from running_installation import Installation, bars_until, tick_of

from include.mltrading.features.definitions import FEATURES as DEFINITIONS
from include.mltrading.market.calendar import Session, is_session, new_york_date
from include.standalone.airflow import MAJOR, airflow_home
from include.standalone.demo import COLLECTION, FEATURES, LOAD
from include.standalone.runs import DagRun, newest_run

pytestmark = pytest.mark.e2e

SERVED = dict.fromkeys(SYMBOLS, "success")


@pytest.fixture(scope="module")
def loaded(installation: Installation) -> DagRun:
    """The on-demand run that has loaded a year of every symbol."""
    installation.pause(LOAD, False)
    return installation.trigger("load_all", period="1y")


@pytest.fixture(scope="module")
def created(installation: Installation, loaded: DagRun) -> tuple[DagRun, DagRun]:
    """The runs, both over, that the scheduler itself created when the scheduled DAGs were unpaused."""
    for dag_id in (COLLECTION, FEATURES):
        installation.pause(dag_id, False)

    def over(dag_id: str) -> DagRun:
        newest = installation.until(
            f"a scheduled run of {dag_id}",
            lambda: newest_run(installation.metadata, dag_id, run_type="scheduled"),
        )
        return installation.ended(dag_id, newest.run_id)

    return over(COLLECTION), over(FEATURES)


@pytest.fixture(scope="module")
def scheduled(installation: Installation, created: tuple[DagRun, DagRun]) -> Installation:
    """The installation with all symbols loaded and all DAGs unpaused, and no tick due in the next hours."""
    for dag_id in (COLLECTION, FEATURES):
        installation.ask_airflow("occupy", dag_id, 3)
    # A tick may have come just before.
    active = "SELECT count(*) = 0 FROM dag_run WHERE state IN ('queued', 'running')"
    installation.until(
        "the end of all runs", lambda: installation.metadata.execute(active).fetchone() == (True,)
    )
    return installation


@dataclass(frozen=True)
class Gated:
    """A tick whose features run had to wait. environments: of the collecting processes, as they ran."""

    day: Session
    collection: DagRun
    features: DagRun
    environments: list[dict[str, str]]


@pytest.fixture(scope="module")
def gated(scheduled: Installation) -> Gated:
    """A tick at which one symbol's answer takes six seconds, while the gate is already asking."""
    day = scheduled.next_day()
    with scheduled.fault("slow", "MSFT", seconds=6.0):
        run_ids = [
            (dag_id, scheduled.plant(dag_id, tick_of(day, dag_id))) for dag_id in (COLLECTION, FEATURES)
        ]
        environments = scheduled.until(
            "a collecting process", lambda: list(_task_environments(scheduled, "MSFT"))
        )
        collection, features = (scheduled.ended(dag_id, run_id) for dag_id, run_id in run_ids)
    return Gated(day, collection, features, environments)


def _task_environments(installation: Installation, symbol: str) -> Iterator[dict[str, str]]:
    """The environments of the installation's processes that work on a symbol now."""
    file = installation.stack.environment["MLTRADING_SYMBOLS_FILE"]
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            words = (folder / "cmdline").read_text(errors="replace").split("\0")
            text = (folder / "environ").read_text(errors="replace")
        except OSError:
            continue  # gone, or another user's
        if words[1:4] == ["-m", "include.mltrading", "task"]:
            variables = dict(line.split("=", 1) for line in text.split("\0") if "=" in line)
            ours = variables.get("MLTRADING_SYMBOLS_FILE") == file  # other tests run theirs meanwhile
            if ours and f'"symbols": ["{symbol}"]' in variables.get("MLTRADING_TASK", ""):
                yield variables


# One run of each DAG ------------------------------------------------------------------------------------


def test_an_on_demand_run_maps_over_every_symbol_and_shows_it_as_the_label(
    installation: Installation, loaded: DagRun
) -> None:
    assert loaded.state == "success"
    assert installation.states(loaded) == {
        "prepare_database": "success",
        "plan_symbols": "success",
        "collect_symbol": SERVED,
        "publish_bars": "success",
        "compute_features": SERVED,
        "publish_features": "success",
        "verify_pipeline": "success",
    }


def test_every_symbol_of_a_run_has_a_ledger_row_with_its_own_cpu_time_and_memory(
    installation: Installation, loaded: DagRun
) -> None:
    rows = installation.market.execute(
        "SELECT step, symbol, try, status, cpu_seconds, peak_memory_bytes FROM processing_history"
        " WHERE dag_id = %s AND run_id = %s ORDER BY step, symbol",
        (loaded.dag_id, loaded.run_id),
    ).fetchall()
    assert [row[:4] for row in rows] == [
        (step, symbol, 1, "ok") for step in ("collect_symbol", "compute_features") for symbol in SYMBOLS
    ]
    used = {row[4:] for row in rows}
    assert len(used) == len(rows), "processes of their own never use exactly the same"
    assert all(cpu > 0 and memory > 1_000_000 for cpu, memory in used)


def test_a_loaded_year_has_a_feature_row_for_every_final_bar_null_exactly_in_the_warm_up(
    installation: Installation, loaded: DagRun
) -> None:
    columns = sql.SQL(", ").join(
        sql.SQL("array_agg({} IS NULL ORDER BY f.timestamp)").format(sql.Identifier(feature.column))
        for feature in DEFINITIONS
    )
    query = sql.SQL(
        "SELECT count(*), count(f.timestamp), {} FROM market_data AS b"
        " LEFT JOIN feature_engineered_data AS f USING (symbol, timestamp)"
        " WHERE b.symbol = %s AND b.is_final AND b.created_at <= %s"
    ).format(columns)
    for symbol in SYMBOLS:
        bars, rows, *nulls = installation.market.execute(query, (symbol, loaded.ended)).fetchone() or ()
        assert bars == rows > 1_650, f"{symbol}: a year has some 1,750 bars"
        for feature, is_null in zip(DEFINITIONS, nulls, strict=True):
            assert is_null == [True] * feature.first_bar + [False] * (bars - feature.first_bar), (
                f"{symbol} {feature.column}"
            )


def test_the_scheduler_itself_runs_the_latest_tick_of_both_dags_when_they_are_unpaused(
    installation: Installation, created: tuple[DagRun, DagRun]
) -> None:
    collection, features = created
    assert collection.state == features.state == "success"
    bars, computed = installation.states(collection), installation.states(features)
    if not is_session(new_york_date(collection.tick)):
        assert _flat(bars) == {"skipped"}
    else:
        assert _flat(bars) == {"success"}
        assert {row[5] for row in installation.ledger(collection)} == {collection.tick}
    matched = installation.metadata.execute(
        "SELECT run_id FROM dag_run WHERE dag_id = %s AND data_interval_end = %s",
        (COLLECTION, features.tick - timedelta(minutes=5)),
    ).fetchone()
    if matched and is_session(new_york_date(features.tick)):
        assert _flat(computed) == {"success"}
    else:
        # Between a collection's tick and the features', the latest ticks belong to two different hours.
        assert _flat(computed) == {"skipped"}


def test_the_gate_looks_while_the_collection_runs_and_opens_when_its_bars_are_published(
    scheduled: Installation, gated: Gated
) -> None:
    assert (gated.collection.state, gated.features.state) == ("success", "success")
    log = scheduled.log(gated.features, "wait_for_bars")
    assert log.count("Poking for tasks") > 1, "no look came too early"
    assert re.search(r"Poking for tasks.*Success criteria met", log, re.DOTALL)
    if MAJOR == 3:
        return  # whose gate does not give its place away
    looked = scheduled.metadata.execute(
        "SELECT count(*) FROM task_reschedule AS look JOIN task_instance AS publish"
        " ON publish.dag_id = %s AND publish.run_id = %s AND publish.task_id = 'publish_bars'"
        " WHERE look.dag_id = %s AND look.run_id = %s AND look.task_id = 'wait_for_bars'"
        " AND look.start_date > %s AND look.end_date < publish.end_date",
        (COLLECTION, gated.collection.run_id, FEATURES, gated.features.run_id, gated.collection.begun),
    ).fetchone()
    assert looked is not None
    assert looked[0] >= 1


def test_a_scheduled_run_stores_the_bars_that_had_ended_by_its_tick_and_their_features(
    scheduled: Installation, gated: Gated
) -> None:
    tick = tick_of(gated.day)
    expected = bars_until(gated.day, tick)
    assert len(expected) == 2
    assert scheduled.states(gated.collection) == {
        "check_session": "success",
        "collect_symbol": SERVED,
        "publish_bars": "success",
        "verify_bars": "success",
    }
    assert scheduled.states(gated.features) == {
        "wait_for_bars": "success",
        "compute_features": SERVED,
        "publish_features": "success",
        "verify_features": "success",
    }
    assert scheduled.ledger(gated.collection) == [
        ("collect_symbol", symbol, 1, "ok", len(expected), tick) for symbol in SYMBOLS
    ]
    assert scheduled.ledger(gated.features) == [
        ("compute_features", symbol, 1, "ok", len(expected), tick_of(gated.day, FEATURES))
        for symbol in SYMBOLS
    ]


# Secrets ------------------------------------------------------------------------------------------------


def test_the_working_process_sees_its_connection_and_nothing_of_airflows(
    scheduled: Installation, gated: Gated
) -> None:
    assert gated.environments
    password = _password(scheduled)
    for variables in gated.environments:
        assert variables["PGPASSWORD"] == password
        airflows = {name for name in variables if name.startswith("AIRFLOW")}
        assert airflows
        assert all(name.startswith("AIRFLOW_CTX_") for name in airflows)
        assert "MLTRADING_DATABASE_URL" not in variables
        assert not any(_fernet_key(scheduled) in value for value in variables.values())


def test_no_secret_is_kept_in_airflows_database_or_any_log(scheduled: Installation, gated: Gated) -> None:
    secrets = [_password(scheduled), _fernet_key(scheduled)]
    tables = [
        row[0]
        for row in scheduled.metadata.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    ]
    assert {"rendered_task_instance_fields", "xcom", "serialized_dag", "dag_code", "log"} <= set(tables)
    for table in tables:
        assert not _holds(scheduled.metadata, table, secrets), f"a secret in Airflow's table {table}"
    # Both searches do find what is there.
    assert _holds(scheduled.metadata, "xcom", ["AAPL"])
    assert _holds(scheduled.metadata, "rendered_task_instance_fields", ["MSFT"])

    logs = [
        path
        for folder in (scheduled.stack.state / "logs", airflow_home(scheduled.stack.state) / "logs")
        for path in folder.rglob("*")
        if path.is_file()
    ]
    assert any("collect_symbol" in str(path) for path in logs)
    for path in logs:
        text = path.read_text(errors="replace")
        assert not any(secret in text for secret in secrets), f"a secret in {path}"


def _holds(metadata: psycopg.Connection[object], table: str, texts: list[str]) -> bool:
    """Whether any row of the table contains one of the texts, also inside of a bytea column."""
    columns = metadata.execute(
        "SELECT column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name = %s",
        (table,),
    ).fetchall()
    as_text = sql.SQL(" || ' ' || ").join(
        sql.SQL("coalesce(encode({}, 'escape'), '')" if kind == "bytea" else "coalesce({}::text, '')").format(
            sql.Identifier(name)
        )
        for name, kind in columns  # type: ignore[misc]
    )
    query = sql.SQL(
        "SELECT EXISTS (SELECT 1 FROM {}, unnest(%s::text[]) AS wanted WHERE strpos({}, wanted) > 0)"
    ).format(sql.Identifier(table), as_text)
    return metadata.execute(query, (texts,)).fetchone() == (True,)


def _password(installation: Installation) -> str:
    return str(conninfo_to_dict(installation.stack.environment["MLTRADING_DATABASE_URL"])["password"])


def _fernet_key(installation: Installation) -> str:
    return installation.stack.environment["AIRFLOW__CORE__FERNET_KEY"].rstrip("=")


def _flat(states: dict[str, object]) -> set[object]:
    """All states that occur."""
    found: set[object] = set()
    for state in states.values():
        found |= set(state.values()) if isinstance(state, dict) else {state}
    return found
