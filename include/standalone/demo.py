"""`make demo`: the whole system on this machine, without a network.

Embedded PostgreSQL, the market simulator, Airflow's scheduler and web server. The on-demand DAG loads a year
of a dozen symbols; then the scheduler runs the latest tick of the collection and of the features DAG. The
databases are the demo's own; a second demo goes on with what the first has stored.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import psycopg
from croniter import croniter

from include.mltrading.configuration.deployments import DagId, load_deployments
from include.mltrading.configuration.settings import Settings
from include.mltrading.configuration.symbols import read_symbols_file
from include.mltrading.errors import UsageError
from include.standalone import airflow
from include.standalone.runs import (
    DagRun,
    connect_metadata,
    import_errors,
    is_parsed,
    newest_run,
    progress,
)
from include.standalone.stack import Stack
from include.standalone.state import StandaloneError

LOAD: DagId = "complete-data-and-features-ondemand"
COLLECTION: DagId = "yahoo-production-data-collection"
FEATURES: DagId = "feature-engineering-production-subprocess"
DAGS = [LOAD, COLLECTION, FEATURES]
MARKET_DATABASE, METADATA_DATABASE = "mltrading_demo", "airflow_demo"
# The simulator bears more than Yahoo does.
REQUESTS_PER_SECOND = "20"
_MINUTES = 30
# Seconds between two lines about a run that goes on, where there is no terminal to write over.
_TELL_EVERY = 30.0
_last_told = time.monotonic()


class _Result(NamedTuple):
    run: DagRun
    rows: int


def main(arguments: list[str]) -> int:
    """Run the demo; 0 when the three runs succeeded, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the three runs instead of at Ctrl-C")
    parser.add_argument(
        "--symbols", type=int, default=12, metavar="N", help="the first N of the symbols file"
    )
    options = parser.parse_args(arguments)
    universe = read_symbols_file(Settings.from_environment().symbols_file)
    if not 1 <= options.symbols <= len(universe):
        raise UsageError(f"--symbols {options.symbols}: give 1 to {len(universe)}, the symbols file's number")
    with Stack(market_database=MARKET_DATABASE, metadata_database=METADATA_DATABASE, report=say) as stack:
        results = _run_pipeline(stack, universe[: options.symbols])
        _tell(stack, results)
        good = all(result.run.state == "success" for result in results)
        if not options.once:
            say("\nEverything stays up; Ctrl-C ends it.")
            stack.wait()
    return 0 if good else 1


def _run_pipeline(stack: Stack, symbols: list[str]) -> list[_Result]:
    with step("starting PostgreSQL"):
        stack.start_database()
    with step("starting the market simulator"):
        stack.export("MLTRADING_YAHOO_URL", stack.start_simulator())
        stack.export("MLTRADING_YAHOO_REQUESTS_PER_SECOND", REQUESTS_PER_SECOND)
        stack.export("MLTRADING_SYMBOLS_FILE", _symbols_file(stack, symbols))
    with step("migrating the market database"):
        stack.run("-m", "include.mltrading", "migrate")
    with step("starting Airflow's scheduler"):
        stack.start_scheduler()
    with step("starting Airflow's web server"):
        address = stack.start_webserver()
    password = airflow.admin_password(stack.state)
    say(f"The Airflow UI is at {address} (user {airflow.ADMIN}, password {password})\n")
    with connect_metadata(stack) as metadata:
        with step("waiting for the DAGs"):
            until(stack, "the scheduler to parse the DAGs", lambda: parsed(metadata))
        run_id = f"demo__{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}"
        stack.airflow("dags", "unpause", LOAD)
        stack.airflow("dags", "trigger", LOAD, "--run-id", run_id)
        runs = [_follow(stack, metadata, LOAD, run_id=run_id)]
        _wait_for_one_tick(stack)
        # Both at once: the gate then really waits for the collection.
        stack.airflow("dags", "unpause", "--treat-dag-id-as-regex", "--yes", ".*-production-.*")
        runs += [_follow(stack, metadata, dag_id, run_type="scheduled") for dag_id in (COLLECTION, FEATURES)]
    with psycopg.connect(stack.environment["MLTRADING_DATABASE_URL"]) as market:
        return [_Result(run, _rows_written(market, run)) for run in runs]


def _symbols_file(stack: Stack, symbols: list[str]) -> str:
    """A symbols file with these; its path."""
    path = stack.state / "demo_symbols.txt"
    path.write_text("\n".join(symbols) + "\n")
    return str(path)


def parsed(metadata: psycopg.Connection[Any]) -> bool:
    """Whether all three DAGs are known. Raises StandaloneError when a file cannot be loaded."""
    errors = import_errors(metadata)
    if errors:
        raise StandaloneError(f"a DAG file cannot be loaded: {errors[0]}")
    return is_parsed(metadata, DAGS)


def _wait_for_one_tick(stack: Stack) -> None:
    """Wait while the latest features tick still belongs to the collection before the latest one.

    Between a collection's tick and the features' five minutes later a newly started scheduler creates
    runs of two different hours; the gate would skip, rightly, what nobody collected.
    """
    while True:
        collection, features = _latest_tick(COLLECTION), _latest_tick(FEATURES)
        if features >= collection:
            return
        say_over(f"waiting for the next features tick, a few minutes after {collection:%H:%M} UTC")
        stack.sleep(1)


def _latest_tick(dag_id: DagId) -> datetime:
    schedule = load_deployments(Settings.from_environment().deployments_file).schedule(dag_id)
    now = datetime.now(ZoneInfo(schedule.timezone))
    tick: datetime = croniter(schedule.cron or "", now).get_prev(datetime)
    return tick.astimezone(UTC)


def _follow(
    stack: Stack,
    metadata: psycopg.Connection[Any],
    dag_id: DagId,
    *,
    run_id: str | None = None,
    run_type: str | None = None,
) -> DagRun:
    """Wait for the end of a run, telling how far it is."""

    def ended() -> DagRun | None:
        run = newest_run(metadata, dag_id, run_id=run_id, run_type=run_type)
        if run is None:
            say_over(f"{dag_id}: waiting for the scheduler to create the run")
            return None
        seconds = (datetime.now(UTC) - run.begun).total_seconds() if run.begun else 0
        say_over(f"{dag_id}: {progress(metadata, run)} ({seconds:.0f} s)")
        return run if run.over else None

    run: DagRun = until(stack, f"the run of {dag_id}", ended)
    say_over(f"{dag_id}: {run.state} after {run.duration.total_seconds():.0f} s\n")
    return run


def until(stack: Stack, what: str, probe: Callable[[], Any]) -> Any:
    """The first true answer of the probe, within half an hour. Raises StandaloneError."""
    give_up = datetime.now(UTC) + timedelta(minutes=_MINUTES)
    while not (found := probe()):
        if datetime.now(UTC) > give_up:
            raise StandaloneError(f"waited {_MINUTES} minutes in vain for {what}: see {stack.state / 'logs'}")
        stack.sleep(0.5)
    return found


def _rows_written(market: psycopg.Connection[Any], run: DagRun) -> int:
    row = market.execute(
        "SELECT coalesce(sum(rows_written), 0) FROM processing_history WHERE dag_id = %s AND run_id = %s",
        (run.dag_id, run.run_id),
    ).fetchone()
    return int(row[0]) if row else 0


def _tell(stack: Stack, results: list[_Result]) -> None:
    say(f"\n{'DAG':<44} {'tick (UTC)':<17} {'state':<8} {'seconds':>7} {'rows written':>12}")
    for run, rows in results:
        tick = "on demand" if run.dag_id == LOAD else f"{run.tick:%Y-%m-%d %H:%M}"
        say(f"{run.dag_id:<44} {tick:<17} {run.state:<8} {run.duration.total_seconds():>7.0f} {rows:>12}")
    health = json.loads(stack.run("-m", "include.mltrading", "check", "--json"))
    say(f"\n{health['symbols']} symbols, newest bar {health['latest_bar']}")
    url = stack.environment["MLTRADING_DATABASE_URL"]
    say(f"\nAirflow UI   {stack.environment['AIRFLOW__WEBSERVER__BASE_URL']}")
    say(f"             user {airflow.ADMIN}, password {airflow.admin_password(stack.state)}")
    say(f"PostgreSQL   psql '{url}'")
    say("             SELECT symbol, timestamp, close, rsi, macd FROM market_data")
    say(
        "             JOIN feature_engineered_data USING (symbol, timestamp) ORDER BY timestamp DESC LIMIT 5;"
    )
    say("Everything   make shell   (airflow, psql, python -m include.mltrading check)")


@contextmanager
def step(text: str) -> Iterator[None]:
    """Tell what is being done and how long it took."""
    begun = time.monotonic()
    say_over(f"{text} ...")
    yield
    say_over(f"{text}: done in {time.monotonic() - begun:.1f} s\n")


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def say_over(text: str) -> None:
    """Text that replaces the line before it on a terminal; elsewhere, now and then a line of its own."""
    global _last_told
    if sys.stdout.isatty():
        end = "" if not text.endswith("\n") else "\n"
        # Only the last row of a line that wraps could be written over.
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[2K{text.rstrip()[:width]}", end=end, flush=True)
    elif text.endswith("\n") or time.monotonic() - _last_told > _TELL_EVERY:
        print(text.rstrip(), flush=True)
        _last_told = time.monotonic()
