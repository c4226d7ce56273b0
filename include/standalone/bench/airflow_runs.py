"""The DAGs under a real scheduler, against a DAG of as many mapped tasks that do nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from include.mltrading.configuration.deployments import load_deployments
from include.mltrading.configuration.settings import Settings
from include.mltrading.configuration.symbols import read_symbols_file
from include.standalone.airflow import METADATA_DATABASE as METADATA
from include.standalone.bench.report import Figure
from include.standalone.console import say
from include.standalone.runs import (
    COLLECTION,
    FEATURES,
    LOAD,
    DagRun,
    connect_metadata,
    newest_run,
    parsed,
    until,
)
from include.standalone.stack import Stack
from include.standalone.state import PROJECT, StandaloneError, make_folder

MARKET_DATABASE, METADATA_DATABASE = "mltrading_bench_airflow", f"{METADATA}_bench"
NOTHING = "bench-nothing"
_SYMBOLS = 100
_BATCH = 25

# The pool and retries of the features DAG, and nothing of ours to import: each instance starts `true`.
_NOTHING_DAG = """from datetime import datetime, timedelta, timezone

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.standard.operators.bash import BashOperator

with DAG(
    "{dag_id}",
    schedule=None,
    start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    default_args={{
        "retries": {retries},
        "retry_delay": timedelta(seconds={retry_delay_seconds}),
        "weight_rule": "absolute",
    }},
):
    BashOperator.partial(
        task_id="do_nothing",
        bash_command="true",
        pool="market_db",
        do_xcom_push=False,
        map_index_template="{{{{ task.env.SYMBOL }}}}",
    ).expand(env={symbols})
"""


def airflow_runs() -> Iterator[Figure]:
    """The three DAGs over 100 symbols at the default request rate, and the features DAG against nothing."""
    with _stack(1) as stack, connect_metadata(stack) as metadata:
        for dag_id, at_most in ((LOAD, 30), (COLLECTION, 8)):
            minutes = _run(stack, metadata, dag_id).duration.total_seconds() / 60
            yield Figure("airflow", f"{dag_id}, {_SYMBOLS} symbols", minutes, "min", at_most)
        yield from _against_nothing(stack, metadata, 1.5)
    with _stack(_BATCH) as stack, connect_metadata(stack) as metadata:
        # The scheduler may still hold the DAG in the form of the last run.
        until(stack, f"batches of {_BATCH}", lambda: _instances(metadata) == _SYMBOLS // _BATCH)
        yield from _against_nothing(stack, metadata, 0.35)


@contextmanager
def _stack(symbols_per_task: int) -> Iterator[Stack]:
    with Stack(market_database=MARKET_DATABASE, metadata_database=METADATA_DATABASE, report=say) as stack:
        universe = read_symbols_file(Settings().symbols_file)
        if len(universe) < _SYMBOLS:
            raise StandaloneError(f"the bench takes {_SYMBOLS} symbols, the symbols file has {len(universe)}")
        symbols_file = stack.state / "bench_airflow_symbols.txt"
        symbols_file.write_text("\n".join(universe[:_SYMBOLS]) + "\n")
        stack.export("MLTRADING_SYMBOLS_FILE", str(symbols_file))
        stack.export("MLTRADING_SYMBOLS_PER_TASK", str(symbols_per_task))
        stack.export("AIRFLOW__CORE__DAGS_FOLDER", str(_dags_folder(stack.state, universe[:_SYMBOLS])))
        stack.start_database()
        stack.export("MLTRADING_YAHOO_URL", stack.start_simulator())
        stack.run("-m", "include.mltrading", "migrate")
        stack.start_scheduler()
        yield stack


def _dags_folder(state: Path, symbols: Sequence[str]) -> Path:
    """Our DAG files and the one that does nothing."""
    folder = state / "bench_dags"
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder, 0o700)
    for path in (PROJECT / "dags").glob("*.py"):
        # Without their schedules: a tick's own run would do the work before the measured one.
        text = path.read_text().replace("schedule=timetable(deployments, DAG_ID)", "schedule=None")
        (folder / path.name).write_text(text)
    deployments = load_deployments(Settings().deployments_file)
    nothing = _NOTHING_DAG.format(
        dag_id=NOTHING,
        retries=deployments.pipeline.retries,
        retry_delay_seconds=deployments.pipeline.retry_delay_seconds,
        symbols=json.dumps([{"SYMBOL": symbol} for symbol in symbols]),
    )
    (folder / "bench_nothing.py").write_text(nothing)
    return folder


def _run(stack: Stack, metadata: psycopg.Connection[Any], dag_id: str) -> DagRun:
    """Trigger a run and wait for its end. Raises StandaloneError when it fails."""
    until(stack, f"the scheduler to parse {dag_id}", lambda: parsed(metadata, [dag_id]))
    run_id = f"bench__{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"
    say(f"running {dag_id}")
    stack.airflow("dags", "unpause", dag_id)
    stack.airflow("dags", "trigger", dag_id, "--run-id", run_id)

    def ended() -> DagRun | None:
        run = newest_run(metadata, dag_id, run_id=run_id)
        return run if run is not None and run.over else None

    run: DagRun = until(stack, f"the run of {dag_id}", ended)
    if run.state != "success":
        raise StandaloneError(
            f"{dag_id} {run.run_id} ended as {run.state}: see {stack.state / 'airflow/logs'}"
        )
    return run


def _against_nothing(stack: Stack, metadata: psycopg.Connection[Any], at_most: float) -> Iterator[Figure]:
    """The features of three sessions, and as many mapped tasks that do nothing."""
    _undo(stack)
    ours = _run(stack, metadata, FEATURES).duration.total_seconds()
    nothing = _run(stack, metadata, NOTHING).duration.total_seconds()
    per_task = stack.environment["MLTRADING_SYMBOLS_PER_TASK"]
    yield Figure("airflow", f"features, {_SYMBOLS} symbols, {per_task} a task", ours, "s", 600)
    yield Figure("airflow", f"  floor: {_SYMBOLS} mapped tasks that do nothing", nothing, "s")
    yield Figure("airflow", "  against the floor", ours / nothing, "x", at_most)


def _undo(stack: Stack) -> None:
    """As if the last three sessions' bars had just come in."""
    with psycopg.connect(stack.environment["MLTRADING_DATABASE_URL"], autocommit=True) as market:
        row = market.execute(
            "SELECT DISTINCT timestamp FROM market_data WHERE is_final ORDER BY 1 DESC OFFSET 20 LIMIT 1"
        ).fetchone()
        market.execute("DELETE FROM feature_engineered_data WHERE timestamp >= %s", row)
        market.execute("UPDATE symbol_state SET stale_from = %s", row)


def _instances(metadata: psycopg.Connection[Any]) -> int:
    """How many instances the features DAG, as the scheduler knows it, maps its computation to."""
    row = metadata.execute(
        "SELECT count(*) FROM serialized_dag, jsonb_array_elements((data::jsonb)->'dag'->'tasks') AS task,"
        " jsonb_array_elements(task->'__var'->'expand_input'->'value'->'__var'->'symbols') AS item"
        " WHERE dag_id = %s AND task->'__var'->>'task_id' = 'compute_features'",
        (FEATURES,),
    ).fetchone()
    return int(row[0]) if row else 0
