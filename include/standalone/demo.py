"""`make demo`: the whole system on this machine, without a network.

Embedded PostgreSQL, the market simulator, Airflow's scheduler and web server. The on-demand DAG loads a year
of a dozen symbols; then the scheduler runs the latest tick of the collection and of the features DAG. The
databases are the demo's own; a second demo goes on with what the first has stored.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from typing import Any

import psycopg

from include.mltrading.configuration.deployments import DagId, load_deployments
from include.mltrading.configuration.settings import Settings
from include.mltrading.configuration.symbols import read_symbols_file
from include.mltrading.errors import UsageError
from include.standalone import airflow
from include.standalone.console import say, say_over, step
from include.standalone.runs import (
    COLLECTION,
    FEATURES,
    LOAD,
    DagRun,
    connect_metadata,
    newest_run,
    parsed,
    progress,
    until,
)
from include.standalone.stack import Stack

MARKET_DATABASE, METADATA_DATABASE = "mltrading_demo", f"{airflow.METADATA_DATABASE}_demo"
# The simulator bears more than Yahoo does.
REQUESTS_PER_SECOND = "20"


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
        start_everything(stack, universe[: options.symbols])
        password = airflow.admin_password(stack.state)
        say(f"The Airflow UI is at {stack.web_url} (user {airflow.ADMIN}, password {password})\n")
        runs = _run_pipeline(stack)
        _tell(stack, runs)
        if not options.once:
            say("\nEverything stays up; Ctrl-C ends it.")
            stack.wait()
    return 0 if all(run.state == "success" for run in runs) else 1


def start_everything(stack: Stack, simulated: list[str] | None) -> None:
    """The database, Airflow and its UI; with `simulated` symbols the simulator in Yahoo's place."""
    with step("starting PostgreSQL"):
        stack.start_database()
    if simulated is not None:
        with step("starting the market simulator"):
            stack.export("MLTRADING_YAHOO_URL", stack.start_simulator())
        symbols_file = stack.state / "demo_symbols.txt"
        symbols_file.write_text("\n".join(simulated) + "\n")
        stack.export("MLTRADING_YAHOO_REQUESTS_PER_SECOND", REQUESTS_PER_SECOND)
        stack.export("MLTRADING_SYMBOLS_FILE", str(symbols_file))
    with step("migrating the market database"):
        stack.run("-m", "include.mltrading", "migrate")
    with step("starting Airflow's web server"):
        stack.start_webserver()  # first, since Airflow 3's scheduler needs it
    with step("starting Airflow's scheduler"):
        stack.start_scheduler()
    with connect_metadata(stack) as metadata, step("waiting for the DAGs"):
        until(stack, "the scheduler to parse the DAGs", lambda: parsed(metadata))


def tell_addresses(stack: Stack) -> None:
    """Print where to look, and with which password."""
    say(
        f"\nAirflow UI   {stack.web_url}\n"
        f"             user {airflow.ADMIN}, password {airflow.admin_password(stack.state)}\n"
        f"PostgreSQL   psql '{stack.environment['MLTRADING_DATABASE_URL']}'"
    )


def _run_pipeline(stack: Stack) -> list[DagRun]:
    with connect_metadata(stack) as metadata:
        run_id = f"demo__{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}"
        stack.airflow("dags", "unpause", LOAD)
        stack.airflow("dags", "trigger", LOAD, "--run-id", run_id)
        loaded = _follow(stack, metadata, LOAD, run_id=run_id)
        until(stack, "the next features tick", _ticks_belong_together)
        # Both at once: the gate then really waits for the collection.
        stack.airflow("dags", "unpause", "--treat-dag-id-as-regex", "--yes", ".*-production-.*")
        return [
            loaded,
            *(_follow(stack, metadata, dag_id, run_type="scheduled") for dag_id in (COLLECTION, FEATURES)),
        ]


def _ticks_belong_together() -> bool:
    """Whether the latest features tick belongs to the latest collection.

    Between a collection's tick and the features' five minutes later a newly started scheduler creates
    runs of two different hours; the gate would skip, rightly, what nobody collected.
    """
    deployments, now = load_deployments(), datetime.now(UTC)
    collection, features = (deployments.schedule(dag_id).tick_until(now) for dag_id in (COLLECTION, FEATURES))
    if features < collection:
        say_over(f"waiting for the next features tick, a few minutes after {collection:%H:%M} UTC")
    return features >= collection


def _follow(stack: Stack, metadata: psycopg.Connection[Any], dag_id: DagId, **of: str) -> DagRun:
    """Wait for the end of a run, telling how far it is. of: its run_id or run_type."""

    def ended() -> DagRun | None:
        run = newest_run(metadata, dag_id, **of)
        if run is None:
            say_over(f"{dag_id}: waiting for the scheduler to create the run")
            return None
        seconds = (datetime.now(UTC) - run.begun).total_seconds() if run.begun else 0
        say_over(f"{dag_id}: {progress(metadata, run)} ({seconds:.0f} s)")
        return run if run.over else None

    run: DagRun = until(stack, f"the run of {dag_id}", ended)
    say_over(f"{dag_id}: {run.state} after {run.duration.total_seconds():.0f} s\n")
    return run


def _tell(stack: Stack, runs: list[DagRun]) -> None:
    say(f"\n{'DAG':<44} {'tick (UTC)':<17} {'state':<8} {'seconds':>7} {'rows written':>12}")
    with psycopg.connect(stack.environment["MLTRADING_DATABASE_URL"]) as market:
        for run in runs:
            row = market.execute(
                "SELECT coalesce(sum(rows_written), 0) FROM processing_history"
                " WHERE dag_id = %s AND run_id = %s",
                (run.dag_id, run.run_id),
            ).fetchone()
            rows = row[0] if row else 0
            tick = "on demand" if run.dag_id == LOAD else f"{run.tick:%Y-%m-%d %H:%M}"
            seconds = run.duration.total_seconds()
            say(f"{run.dag_id:<44} {tick:<17} {run.state:<8} {seconds:>7.0f} {rows:>12}")
    health = json.loads(stack.run("-m", "include.mltrading", "check", "--json"))
    say(f"\n{health['symbols']} symbols, newest bar {health['latest_bar']}")
    tell_addresses(stack)
    say("             SELECT symbol, timestamp, close, rsi, macd FROM market_data")
    say(
        "             JOIN feature_engineered_data USING (symbol, timestamp) ORDER BY timestamp DESC LIMIT 5;"
    )
    say("Everything   make shell   (airflow, psql, python -m include.mltrading check)")
