"""A running installation as the tests see it: its runs, task states and logs, its ledger and its tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import yaml
from psycopg import sql

from include.market_simulator import MarketSimulator
from include.mltrading.configuration.settings import PROJECT_ROOT, Settings
from include.mltrading.market.calendar import (
    NEW_YORK,
    Session,
    bars_of,
    new_york_date,
    sessions_between,
)
from include.mltrading.store.queries import query
from include.standalone import airflow
from include.standalone.demo import COLLECTION, FEATURES, LOAD
from include.standalone.runs import DagRun, connect_metadata, newest_run
from include.standalone.stack import Stack

Found = TypeVar("Found")

# A run takes some ten seconds on two free cores; a busy machine may need far longer.
_AIRFLOW_SIDE = "airflow_side.py" if airflow.MAJOR == 2 else "airflow_side3.py"
_PATIENCE = 600.0


@dataclass
class Installation:
    """A running installation. metadata, market: connections to Airflow's database and the bars'.

    scheduled: whether a scheduler does the runs; otherwise `airflow_side` does one when its end is asked for.
    """

    stack: Stack
    simulator: MarketSimulator
    metadata: psycopg.Connection[Any]
    market: psycopg.Connection[Any]
    scheduled: bool = False
    _days: list[Session] = field(default_factory=lambda: past_sessions(20))

    # Time -----------------------------------------------------------------------------------------------

    def next_day(self) -> Session:
        """A past full session that no other test has got; the bars from its open on are forgotten.

        The newest first, so that nothing of what earlier tests did lies before it unfinished.
        """
        day = self._days.pop()
        self.forget_since(day.open)
        return day

    def forget_since(self, instant: datetime) -> None:
        """Make the market database one in which nothing from the instant on was ever collected."""
        with self.market.transaction():
            for table in ("market_data", "feature_engineered_data"):
                delete = sql.SQL("DELETE FROM {} WHERE timestamp >= %s").format(sql.Identifier(table))
                self.market.execute(delete, (instant,))
            self.market.execute(
                "UPDATE symbol_state SET stale_from = NULL WHERE stale_from >= %s", (instant,)
            )

    @contextmanager
    def fault(self, kind: str, *symbols: str, **options: Any) -> Iterator[None]:
        """Let the simulator's answers about these symbols go wrong during the block."""
        for symbol in symbols:
            self.simulator.fault(kind, symbol=symbol, **options)
        try:
            yield
        finally:
            self.simulator.clear_faults()

    @contextmanager
    def held(self, *symbols: str) -> Iterator[None]:
        """Let whoever stores these symbols' bars wait for the end of the block."""
        with self.market.transaction():
            for symbol in symbols:
                self.market.execute(query("bars/lock_symbol"), {"symbol": symbol})
            yield

    # Runs -----------------------------------------------------------------------------------------------

    @cached_property
    def _airflow_side(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                sys.executable,
                str(
                    Path(__file__).with_name("airflow_side.py" if airflow.MAJOR == 2 else "airflow_side3.py")
                ),
            ],
            env=self.stack.environment,
            cwd=PROJECT_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask_airflow(self, *command: object) -> Any:
        """The answer of `airflow_side` to a command."""
        side = self._airflow_side
        assert side.stdin is not None
        assert side.stdout is not None
        side.stdin.write(json.dumps(command) + "\n")
        side.stdin.flush()
        line = side.stdout.readline()
        assert line, f"airflow_side ended at {command}"
        told = json.loads(line)
        assert "error" not in told, f"{command}: {told['error']}"
        return told["answer"]

    def plant(self, dag_id: str, tick: datetime) -> str:
        """Queue the scheduled run of a past tick; the real scheduler runs it. Its run id."""
        return str(self.ask_airflow("plant", dag_id, tick.isoformat()))

    def clear(self, run: DagRun, from_task: str | None = None) -> DagRun:
        """Clear a run, or one of its tasks and what comes after, and wait for its new end."""
        assert self.ask_airflow("clear", run.dag_id, run.run_id, from_task) > 0
        return self.ended(run.dag_id, run.run_id)

    def run_tick(self, day: Session) -> tuple[DagRun, DagRun]:
        """Run the 12:00 tick of a past day, collection and features together, to their ends."""
        ids = [(dag_id, self.plant(dag_id, tick_of(day, dag_id))) for dag_id in (COLLECTION, FEATURES)]
        collection, features = (self.ended(dag_id, run_id) for dag_id, run_id in ids)
        return collection, features

    def pause(self, dag_id: str, paused: bool = True) -> None:
        """Pause or unpause a DAG at once; the command would take seconds."""
        update = "UPDATE dag SET is_paused = %s WHERE dag_id = %s"
        # The DAG's own row may come a moment after its serialized form.
        self.until(f"{dag_id} to be known", lambda: self.metadata.execute(update, (paused, dag_id)).rowcount)

    def start(self, dag_id: str, run_id: str, **conf: object) -> None:
        """Trigger a run."""
        self.ask_airflow("trigger", dag_id, run_id, conf)

    def trigger(self, run_id: str, **conf: object) -> DagRun:
        """Trigger the on-demand DAG and wait for its end."""
        self.start(LOAD, run_id, **conf)
        return self.ended(LOAD, run_id)

    def ended(self, dag_id: str, run_id: str) -> DagRun:
        """The run once it is over."""
        if not self.scheduled:
            return self.over(dag_id, run_id, self.begin(dag_id, run_id))

        def over() -> DagRun | None:
            run = newest_run(self.metadata, dag_id, run_id=run_id)
            return run if run and run.over else None

        return self.until(f"the end of {dag_id} {run_id}", over)

    def begin(self, dag_id: str, run_id: str) -> int:
        """Begin a queued run where there is no scheduler; what `over` wants to know."""
        return int(self.ask_airflow("begin", dag_id, run_id))

    def over(self, dag_id: str, run_id: str, begun: int) -> DagRun:
        """A run that has begun, once it and its callback are over."""
        self.ask_airflow("over", dag_id, begun)
        run = newest_run(self.metadata, dag_id, run_id=run_id)
        assert run is not None
        return run

    def until(self, what: str, probe: Callable[[], Found | None]) -> Found:
        """The first true answer of the probe, asked five times a second."""
        give_up = time.monotonic() + _PATIENCE
        while not (found := probe()):
            self.stack.check()
            assert time.monotonic() < give_up, f"waited {_PATIENCE:.0f} s in vain for {what}"
            time.sleep(0.2)
        return found

    def states(self, run: DagRun) -> dict[str, Any]:
        """task_id -> state; of a mapped task label -> state. A label is what the grid shows."""
        rows = self.metadata.execute(
            "SELECT task_id, map_index, rendered_map_index, state FROM task_instance"
            " WHERE dag_id = %s AND run_id = %s ORDER BY task_id, map_index",
            (run.dag_id, run.run_id),
        )
        states: dict[str, Any] = {}
        for task_id, map_index, label, state in rows:
            if map_index < 0:
                states[task_id] = state
            else:
                states.setdefault(task_id, {})[label or str(map_index)] = state
        return states

    def log(self, run: DagRun, task_id: str) -> str:
        """What the task's instances have logged, all tries."""
        folder = (
            airflow.airflow_home(self.stack.state) / "logs" / f"dag_id={run.dag_id}" / f"run_id={run.run_id}"
        )
        files = sorted((folder / f"task_id={task_id}").rglob("*.log"))
        return "\n".join(file.read_text() for file in files)

    # Data -----------------------------------------------------------------------------------------------

    def ledger(self, run: DagRun) -> list[tuple[Any, ...]]:
        """(step, symbol, try, status, rows written, window end) of every row of the run, in order."""
        return self.market.execute(
            "SELECT step, symbol, try, status, rows_written, window_end FROM processing_history"
            " WHERE dag_id = %s AND run_id = %s ORDER BY step, symbol, try",
            (run.dag_id, run.run_id),
        ).fetchall()

    def final_bars(self, symbol: str, since: datetime) -> list[datetime]:
        """Starts of the symbol's final bars from an instant on."""
        rows = self.market.execute(
            "SELECT timestamp FROM market_data WHERE symbol = %s AND timestamp >= %s AND is_final ORDER BY 1",
            (symbol, since),
        )
        return [row[0] for row in rows]

    def feature_rows(self, symbol: str, since: datetime) -> list[datetime]:
        """Starts of the bars whose features are stored, from an instant on."""
        rows = self.market.execute(
            "SELECT timestamp FROM feature_engineered_data WHERE symbol = %s AND timestamp >= %s ORDER BY 1",
            (symbol, since),
        )
        return [row[0] for row in rows]

    def everything_stored(self) -> list[Any]:
        """All bars and features with the times at which they were written, and all revisions."""
        tables = ("market_data", "feature_engineered_data", "bar_revisions", "quarantined_bars")
        select = sql.SQL("SELECT * FROM {} ORDER BY symbol, timestamp")
        return [self.market.execute(select.format(sql.Identifier(table))).fetchall() for table in tables]

    # Life -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the process that speaks with Airflow, where there is one."""
        if "_airflow_side" in self.__dict__:
            side = self._airflow_side
            side.communicate()
            assert side.returncode == 0


@contextmanager
def installed(state: Path, folder: Path, symbols: list[str]) -> Iterator[Installation]:
    """An installation of these symbols that no scheduler runs yet. folder: for its configuration.

    Unlike a real one it does not try again (tests of failures would wait for minutes), its gate looks
    every four seconds, and two of three symbols are enough.
    """
    symbols_file = folder / "symbols.txt"
    symbols_file.write_text("\n".join(symbols) + "\n")
    deployments_file = write_deployments(
        folder / "deployments.yaml", retries=0, gate_poke_seconds=4, minimum_good_share=0.6
    )
    with MarketSimulator() as simulator, Stack(state, report=lambda line: None) as stack:
        stack.start_database()
        stack.export("MLTRADING_YAHOO_URL", simulator.url)
        stack.export("MLTRADING_YAHOO_REQUESTS_PER_SECOND", "100")
        stack.export("MLTRADING_SYMBOLS_FILE", str(symbols_file))
        stack.export("MLTRADING_DEPLOYMENTS_FILE", str(deployments_file))
        # The files do not change: parsing them twice a minute is a tenth of a core.
        stack.export("AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL", "600")
        # A backfill sleeps so long between two looks at its tasks, five seconds by default.
        stack.export("AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC", "1")
        with (
            connect_metadata(stack) as metadata,
            psycopg.connect(stack.environment["MLTRADING_DATABASE_URL"], autocommit=True) as market,
        ):
            there = Installation(stack, simulator, metadata, market)
            yield there
            there.close()


@dataclass(frozen=True)
class Shell:
    """`make shell CMD='…'` of an installation."""

    state: Path

    def __call__(self, command: str) -> subprocess.CompletedProcess[str]:
        with subprocess.Popen(
            [sys.executable, "-m", "include.standalone", "shell", "--command", command],
            cwd=PROJECT_ROOT,
            env={**os.environ, "MLTRADING_STATE_DIR": str(self.state)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=_PATIENCE)
            except subprocess.TimeoutExpired:
                process.terminate()  # the shell passes it on
                out, err = process.communicate()
                raise AssertionError(f"did not end: {command}\n{out}\n{err}") from None
        return subprocess.CompletedProcess(command, process.returncode, out, err)


def past_sessions(count: int) -> list[Session]:
    """The last full sessions that are old enough for nothing to be live, oldest first."""
    last = new_york_date(datetime.now(UTC)) - timedelta(days=2)
    sessions = sessions_between(last - timedelta(days=3 * count), last)
    return [session for session in sessions if session.close - session.open > timedelta(hours=6)][-count:]


def past_holiday() -> date:
    """The last weekday, before yesterday, on which the exchange did not open."""
    last = new_york_date(datetime.now(UTC)) - timedelta(days=2)
    opened = {session.day for session in sessions_between(last - timedelta(days=200), last)}
    days = (last - timedelta(days=back) for back in range(200))
    return next(day for day in days if day.weekday() < 5 and day not in opened)


def tick_of(day: Session | date, dag_id: str = COLLECTION, hour: int = 12) -> datetime:
    """The DAG's tick of an hour of a New York day, UTC."""
    on = day.day if isinstance(day, Session) else day
    minute = 5 if dag_id == FEATURES else 0
    return datetime(on.year, on.month, on.day, hour, minute, tzinfo=NEW_YORK).astimezone(UTC)


def bars_until(day: Session, tick: datetime) -> list[datetime]:
    """Starts of the day's bars that have ended by the tick."""
    return [start for start, end in bars_of(day) if end <= tick]


def write_deployments(path: Path, **pipeline: object) -> Path:
    """A copy of the project's deployments.yaml with other values under `pipeline`."""
    content = yaml.safe_load(Settings.deployments_file.read_text())
    content["pipeline"] |= pipeline
    path.write_text(yaml.safe_dump(content))
    return path
