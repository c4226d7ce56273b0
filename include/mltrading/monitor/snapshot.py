"""One look at the system's health, as data: the pipelines' last runs and the freshness of every symbol."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from psycopg import IsolationLevel

from include.mltrading.config import Deployments
from include.mltrading.features.definitions import FEATURE_VERSION
from include.mltrading.market.calendar import bars_of, grid, last_sessions
from include.mltrading.store.connection import Connection
from include.mltrading.store.migrations import require_current_schema
from include.mltrading.store.queries import query

COLLECTION_DAG_ID: Literal["yahoo-production-data-collection"] = "yahoo-production-data-collection"

Freshness = Literal["fresh", "late", "stale", "empty"]


@dataclass(frozen=True)
class Step:
    """One step of a run. served, failed, running: symbols by their latest try.

    finished_at: None while any runs.
    """

    step: str
    started_at: datetime
    finished_at: datetime | None
    served: int
    failed: int
    running: int
    rows_written: int


@dataclass(frozen=True)
class LastRun:
    """The run of a DAG with the latest tick (the end of the window it works on)."""

    run_id: str
    tick: datetime
    steps: list[Step]


@dataclass(frozen=True)
class Pipeline:
    """One deployment; last_run is None before its first."""

    dag_id: str
    display_name: str
    last_run: LastRun | None


@dataclass(frozen=True)
class Symbol:
    """How current a symbol is.

    newest_bar: start of its newest final bar. bars_behind: how many of the exchange's bars after that have
    ended, None without any. features_behind: final bars whose features are not up to date.
    """

    symbol: str
    newest_bar: datetime | None
    bars_behind: int | None
    features_behind: int
    freshness: Freshness


@dataclass(frozen=True)
class Snapshot:
    """Everything, as of one instant (UTC).

    source: yahoo, simulated, or None before the first bar. expected_bar: start of the newest bar that has
    ended. totals: symbols, by freshness, and those whose features are behind.
    """

    as_of: datetime
    source: str | None
    expected_bar: datetime
    pipelines: list[Pipeline]
    symbols: list[Symbol]
    totals: dict[str, int]

    @property
    def empty(self) -> bool:
        """Whether nothing was ever stored or tried."""
        return self.totals["empty"] == len(self.symbols) and not any(
            pipeline.last_run for pipeline in self.pipelines
        )

    def as_document(self) -> dict[str, Any]:
        """The snapshot as JSON values, times as ISO texts."""
        document: dict[str, Any] = _plain(asdict(self))
        return document


def snapshot(
    connection: Connection, deployments: Deployments, symbols: Sequence[str], now: datetime
) -> Snapshot:
    """Look once, read-only and at one state of the database. now: UTC; the calendar tells what is due then.

    Raises SchemaError when the database has no schema or another one, psycopg.Error when it fails.
    """
    connection.read_only = True
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    with connection.transaction():
        require_current_schema(connection)
        source = connection.execute(query("monitor_source")).fetchone()
        pipelines = _pipelines(connection, deployments)
        rows = connection.execute(
            query("monitor_symbols"), {"symbols": list(symbols), "feature_version": FEATURE_VERSION}
        ).fetchall()
    due = _due_bars(
        min((newest for _, newest, _ in rows if newest is not None), default=now),
        now - timedelta(minutes=deployments.pipeline.finality_delay_minutes),
    )
    threshold = deployments.deployments[COLLECTION_DAG_ID].alert_threshold_hours
    states = [_symbol(name, newest, stale, due, threshold) for name, newest, stale in rows]
    totals = {"symbols": len(states), "fresh": 0, "late": 0, "stale": 0, "empty": 0}
    for state in states:
        totals[state.freshness] += 1
    totals["features_behind"] = sum(state.features_behind > 0 for state in states)
    return Snapshot(now, source[0] if source else None, due[-1], pipelines, states, totals)


def _pipelines(connection: Connection, deployments: Deployments) -> list[Pipeline]:
    """The primary deployments, the most important first."""
    shown = sorted(
        deployments.dashboard.primary_deployments, key=lambda dag_id: deployments.deployments[dag_id].priority
    )[: deployments.dashboard.max_visible_deployments]
    runs: dict[str, LastRun] = {}
    for dag_id, run_id, tick, *step in connection.execute(
        query("monitor_last_runs"), {"dag_ids": list(shown)}
    ):
        runs.setdefault(dag_id, LastRun(run_id, tick, [])).steps.append(Step(*step))
    return [
        Pipeline(dag_id, deployments.deployments[dag_id].display_name, runs.get(dag_id)) for dag_id in shown
    ]


def _due_bars(since: datetime, until: datetime) -> list[datetime]:
    """Starts of the exchange's bars from `since` on that have ended by `until`, the newest one always."""
    bars = grid(since, until)
    # Before the first bar of a session has ended, the newest is one of the session before.
    for session in last_sessions(2, until):
        bars.update(bars_of(session))
    return sorted(start for start, end in bars.items() if end <= until)


def _symbol(
    name: str, newest: datetime | None, features_behind: int, due: list[datetime], threshold_hours: float
) -> Symbol:
    if newest is None:
        return Symbol(name, None, None, features_behind, "empty")
    behind = len(due) - bisect_right(due, newest)
    # A bar is an hour of the market; the time in which it is closed makes nobody late.
    freshness: Freshness = "fresh" if behind == 0 else "late" if behind <= threshold_hours else "stale"
    return Symbol(name, newest, behind, features_behind, freshness)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value
