"""One look at the system's health, as data: pipelines, their performance, fresh data, the system itself."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo

from croniter import croniter
from psycopg import IsolationLevel

from include.mltrading.configuration.deployments import DagId, Deployments
from include.mltrading.features.definitions import FEATURE_VERSION
from include.mltrading.market.calendar import bars_of, grid, last_sessions, market_time_ago, served_bars
from include.mltrading.monitor.machine import Disk, Memory, disks, memory
from include.mltrading.operations.check import CHECKED_SESSIONS
from include.mltrading.pipeline.quality import silent_symbols
from include.mltrading.pipeline.steps import COLLECT, FEATURES
from include.mltrading.store.connection import Connection
from include.mltrading.store.migrations import require_current_schema
from include.mltrading.store.queries import query

COLLECTION_DAG_ID: DagId = "yahoo-production-data-collection"

Part = Literal["pipelines", "performance", "freshness", "health"]
PARTS: tuple[Part, ...] = get_args(Part)
State = Literal["ok", "empty", "first_run"]
RunState = Literal["running", "ok", "failed"]
Freshness = Literal["fresh", "late", "stale", "silent", "empty"]

SHOWN_RUNS = 30
COUNT_TO = 100
"""Counting a symbol's bars without features ends here."""
_MOST_RUNS = 300  # of one DAG, however many a week has seen
_SHOWN_ALERTS = 20
_DAY, _WEEK = timedelta(days=1), timedelta(days=7)


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
class Run:
    """A run as the ledger knows it. tick: the end of the window it works on.

    state: failed when any symbol failed in any step. seconds: from the start of the first symbol to the end
    of the last one, None while any runs; Airflow's own waiting before and after does not count.
    """

    run_id: str
    tick: datetime
    state: RunState
    started_at: datetime
    seconds: float | None
    steps: list[Step]


@dataclass(frozen=True)
class Success:
    """Of the runs that began lately and are over: how many had no failure, and their symbols, step by step.

    share: of the symbols that were served, None without any.
    """

    runs: int
    runs_ok: int
    symbols: int
    symbols_ok: int
    share: float | None


@dataclass(frozen=True)
class Pipeline:
    """One deployment. last_run: with the latest tick, None before its first; next_tick: None unscheduled."""

    dag_id: str
    display_name: str
    last_run: Run | None
    day: Success
    week: Success
    next_tick: datetime | None


@dataclass(frozen=True)
class RunTime:
    """How long a run took, in seconds; None while it runs."""

    run_id: str
    tick: datetime
    state: RunState
    seconds: float | None


@dataclass(frozen=True)
class Timing:
    """Run times of a deployment, oldest first; what is expected and what counts as late, in seconds."""

    dag_id: str
    display_name: str
    expected_seconds: float
    limit_seconds: float
    runs: list[RunTime]


@dataclass(frozen=True)
class Cost:
    """What a symbol's latest try in a pipeline's last run took."""

    dag_id: str
    run_id: str
    step: str
    symbol: str
    status: str
    seconds: float
    cpu_seconds: float | None
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class Performance:
    """Run times, and the costs of all symbols, the slowest first."""

    pipelines: list[Timing]
    costs: list[Cost]


@dataclass(frozen=True)
class Symbol:
    """How current a symbol is.

    newest_bar: start of its newest final bar. bars_behind: how many of the exchange's bars after that have
    ended; age_hours: how long the exchange was open since that bar's end; both None without any bar.
    missing: bars of the last sessions that are not stored as final ones, those behind included.
    features_behind: final bars whose features are not up to date, counted up to COUNT_TO. freshness: silent =
    no new bar for some sessions in which the others have theirs.
    """

    symbol: str
    newest_bar: datetime | None
    bars_behind: int | None
    age_hours: float | None
    missing: int
    features_behind: int
    freshness: Freshness


@dataclass(frozen=True)
class DataFreshness:
    """expected_bar: start of the newest bar that has ended.

    stale_before: a symbol whose newest bar is older is stale; it is the mails' rule. sessions: so many are
    looked through for missing bars. totals: symbols, by freshness (silent: where there are some), and
    those that lack features or bars.
    """

    expected_bar: datetime
    stale_before: datetime
    threshold_hours: float
    sessions: int
    count_to: int
    totals: dict[str, int]
    symbols: list[Symbol]


@dataclass(frozen=True)
class Table:
    """A table's size in bytes, indexes included, and about how many rows it holds."""

    name: str
    bytes: int
    rows: int


@dataclass(frozen=True)
class Growth:
    """Rows that the runs of the last day and week wrote in one step."""

    step: str
    day: int
    week: int


@dataclass(frozen=True)
class RateLimit:
    """Nobody asks the vendor before `paused_until`; refusals: pauses in a row; waiting: processes in line."""

    vendor: str
    paused_until: datetime | None
    refusals: int
    waiting: int


@dataclass(frozen=True)
class OpenAlert:
    """An alert that is not over."""

    severity: str
    kind: str
    subject: str
    opened_at: datetime
    dag_id: str | None
    run_id: str | None


@dataclass(frozen=True)
class Health:
    """The system. connections: of the pipeline's database role, against its limit. last_backup: verified."""

    database_bytes: int
    connections: int
    connections_limit: int
    tables: list[Table]
    growth: list[Growth]
    memory: Memory
    disks: list[Disk]
    rate_limits: list[RateLimit]
    alerts: list[OpenAlert]
    alerts_open: int
    quarantined: int
    quarantined_day: int
    last_backup: datetime | None


@dataclass(frozen=True)
class Snapshot:
    """What was asked for, as of one instant (UTC); a part that was not is None.

    source: yahoo, simulated, or None before the first bar.
    """

    as_of: datetime
    source: str | None
    state: State
    pipelines: list[Pipeline] | None = None
    performance: Performance | None = None
    freshness: DataFreshness | None = None
    health: Health | None = None

    def as_document(self) -> dict[str, Any]:
        """The snapshot as JSON values, times as ISO texts, without the parts that were not asked for."""
        return {name: value for name, value in plain(self).items() if value is not None}


class FinishedRuns:
    """The steps of runs that are over, kept from one look at a database to the next.

    A run that is cleared begins anew with a try of a later date, by which it is known to have changed.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], tuple[datetime, list[Step]]] = {}

    def steps(self, dag_id: str, run_id: str, newest_try: datetime) -> list[Step] | None:
        """The run's steps; None when they have to be counted."""
        began, steps = self._kept.get((dag_id, run_id), (None, None))
        return steps if began == newest_try else None

    def keep(self, runs: dict[tuple[str, str], tuple[datetime, list[Step]]]) -> None:
        """Remember those of the runs that are over, and forget all others."""
        self._kept = {run: found for run, found in runs.items() if not any(step.running for step in found[1])}


def snapshot(
    connection: Connection,
    deployments: Deployments,
    symbols: Sequence[str],
    now: datetime,
    parts: Collection[Part] = PARTS,
    finished: FinishedRuns | None = None,
) -> Snapshot:
    """Look once, read-only and at one state of the database. now: UTC; the calendar tells what is due then.

    finished: what an earlier look at the same database has left; it saves counting a week of tries again.
    Raises SchemaError when the database has no schema or another one, psycopg.Error when it fails.
    """
    with read_only(connection):
        require_current_schema(connection)
        source, bars, tries, first_run = connection.execute(
            query("monitor/monitor_state"), {"now": now}
        ).fetchone() or (None, False, False, False)
        finished = finished or FinishedRuns()
        runs = {} if set(parts) == {"freshness"} else _runs(connection, deployments, now, finished)
        return Snapshot(
            now,
            source,
            "first_run" if first_run else "ok" if bars or tries else "empty",
            _pipelines(deployments, runs, now) if "pipelines" in parts else None,
            _performance(connection, deployments, runs) if "performance" in parts else None,
            _freshness(connection, deployments, symbols, now) if "freshness" in parts else None,
            _health(connection, runs, now) if "health" in parts else None,
        )


def read_only(connection: Connection) -> Any:
    """A transaction that sees one state of the database and changes nothing."""
    connection.read_only = True
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    return connection.transaction()


def plain(value: Any) -> Any:
    """The value as JSON knows it: data classes as objects, times as ISO texts.

    Not by dataclasses.asdict, which copies each number: it took twice the processor time of all the rest.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list):
        return [plain(item) for item in value]
    fields = value if isinstance(value, dict) else vars(value)
    return {name: plain(item) for name, item in fields.items()}


def shown_pipelines(deployments: Deployments) -> list[DagId]:
    """The primary deployments, the most important first, as many as the monitor may show."""
    dashboard = deployments.dashboard
    ordered = sorted(
        dashboard.primary_deployments, key=lambda dag_id: deployments.deployments[dag_id].priority
    )
    return ordered[: dashboard.max_visible_deployments]


# Runs ---------------------------------------------------------------------------------------------------


def _runs(
    connection: Connection, deployments: Deployments, now: datetime, finished: FinishedRuns
) -> dict[str, list[Run]]:
    """The runs of each shown DAG, newest first: the last ones, and all of a week."""
    found = connection.execute(
        query("monitor/monitor_newest_runs"),
        {
            "dag_ids": list(shown_pipelines(deployments)),
            "runs": SHOWN_RUNS,
            "since": now - _WEEK,
            "most": _MOST_RUNS,
        },
    ).fetchall()
    counted: dict[tuple[str, str], list[Step]] = {}
    uncounted: list[tuple[str, str]] = []
    for dag_id, run_id, _, newest_try in found:
        steps = finished.steps(dag_id, run_id, newest_try)
        if steps is None:
            uncounted.append((dag_id, run_id))
            steps = []
        counted[dag_id, run_id] = steps
    asked = {"dag_ids": [dag_id for dag_id, _ in uncounted], "run_ids": [run_id for _, run_id in uncounted]}
    for dag_id, run_id, *step in connection.execute(query("monitor/monitor_steps"), asked):
        counted[dag_id, run_id].append(Step(*step))
    finished.keep({(row[0], row[1]): (row[3], counted[row[0], row[1]]) for row in found})
    runs: dict[str, list[Run]] = {}
    for dag_id, run_id, tick, _ in found:
        runs.setdefault(dag_id, []).append(_run(run_id, tick, counted[dag_id, run_id]))
    return runs


def _run(run_id: str, tick: datetime, steps: list[Step]) -> Run:
    steps = sorted(steps, key=lambda step: (step.started_at, step.step))
    began = min(step.started_at for step in steps)
    ended = [step.finished_at for step in steps if step.finished_at is not None]
    running = len(ended) < len(steps)
    state: RunState = "running" if running else "failed" if any(step.failed for step in steps) else "ok"
    seconds = None if running else (max(ended) - began).total_seconds()
    return Run(run_id, tick, state, began, seconds, steps)


def _pipelines(deployments: Deployments, runs: dict[str, list[Run]], now: datetime) -> list[Pipeline]:
    return [
        Pipeline(
            dag_id,
            deployments.deployments[dag_id].display_name,
            next(iter(runs.get(dag_id, [])), None),
            _success(runs.get(dag_id, []), now - _DAY),
            _success(runs.get(dag_id, []), now - _WEEK),
            _next_tick(deployments, dag_id, now),
        )
        for dag_id in shown_pipelines(deployments)
    ]


def _success(runs: Sequence[Run], since: datetime) -> Success:
    over = [run for run in runs if run.started_at >= since and run.state != "running"]
    served = sum(step.served for run in over for step in run.steps)
    symbols = served + sum(step.failed for run in over for step in run.steps)
    good = sum(run.state == "ok" for run in over)
    return Success(len(over), good, symbols, served, served / symbols if symbols else None)


def _next_tick(deployments: Deployments, dag_id: DagId, now: datetime) -> datetime | None:
    schedule = deployments.schedule(dag_id)
    if schedule.cron is None:
        return None
    after = croniter(schedule.cron, now.astimezone(ZoneInfo(schedule.timezone)))
    tick: datetime = after.get_next(datetime)
    return tick.astimezone(UTC)


def _performance(connection: Connection, deployments: Deployments, runs: dict[str, list[Run]]) -> Performance:
    timings = []
    for dag_id in shown_pipelines(deployments):
        deployment = deployments.deployments[dag_id]
        shown = [RunTime(r.run_id, r.tick, r.state, r.seconds) for r in runs.get(dag_id, [])[:SHOWN_RUNS]]
        timings.append(
            Timing(
                dag_id,
                deployment.display_name,
                deployment.expected_runtime_minutes * 60,
                deployments.sla(dag_id).total_seconds(),
                shown[::-1],
            )
        )
    last = [(dag_id, of_dag[0].run_id) for dag_id, of_dag in runs.items()]
    rows = connection.execute(
        query("monitor/monitor_costs"),
        {"dag_ids": [dag_id for dag_id, _ in last], "run_ids": [run_id for _, run_id in last]},
    )
    return Performance(timings, sorted((Cost(*row) for row in rows), key=lambda cost: -cost.seconds))


# Freshness ----------------------------------------------------------------------------------------------


def stale_before(deployments: Deployments, now: datetime) -> datetime:
    """Start of the bar that every symbol must have: the collection's threshold, in market time, is over."""
    threshold = timedelta(hours=deployments.deployments[COLLECTION_DAG_ID].alert_threshold_hours)
    due = market_time_ago(threshold, now) - _delay(deployments)
    return max(start for session in last_sessions(2, due) for start, end in bars_of(session) if end <= due)


def _delay(deployments: Deployments) -> timedelta:
    return timedelta(minutes=deployments.pipeline.finality_delay_minutes)


def _freshness(
    connection: Connection, deployments: Deployments, symbols: Sequence[str], now: datetime
) -> DataFreshness:
    until = now - _delay(deployments)
    expected = [
        start
        for session in last_sessions(CHECKED_SESSIONS, until)
        for start, end in bars_of(session)
        if end <= until
    ]
    rows = connection.execute(
        query("monitor/monitor_symbols"),
        {
            "symbols": list(symbols),
            "feature_version": FEATURE_VERSION,
            "expected": expected,
            "count_to": COUNT_TO,
        },
    ).fetchall()
    oldest = min((newest for _, newest, _, _ in rows if newest is not None), default=expected[0])
    market = _Market(min(oldest, expected[0]), until, now)
    stale = stale_before(deployments, now)
    silent = silent_symbols({name: newest for name, newest, _, _ in rows}, now)
    states = [_symbol(market, stale, silent, *row) for row in rows]
    totals = {"symbols": len(states), "fresh": 0, "late": 0, "stale": 0, "empty": 0}
    for state in states:
        totals[state.freshness] = totals.get(state.freshness, 0) + 1
    totals["features_behind"] = sum(state.features_behind > 0 for state in states)
    totals["missing"] = sum(state.missing > 0 for state in states)
    threshold = deployments.deployments[COLLECTION_DAG_ID].alert_threshold_hours
    return DataFreshness(expected[-1], stale, threshold, CHECKED_SESSIONS, COUNT_TO, totals, states)


class _Market:
    """The exchange's bars from an instant on: which are due by `until`, and how long it was open by `now`."""

    def __init__(self, since: datetime, until: datetime, now: datetime) -> None:
        bars = sorted(grid(since, now).items())
        self._due = [start for start, end in served_bars(since, now) if end <= until]
        self._starts = [start for start, _ in bars]
        # open_since[i]: hours for which the exchange was open from the start of bar i to now.
        hours = [(min(end, now) - start) / timedelta(hours=1) for start, end in reversed(bars)]
        self._open_since = [*list(accumulate(hours))[::-1], 0.0]

    def behind(self, newest: datetime) -> int:
        """How many due bars start after that one."""
        return len(self._due) - bisect_right(self._due, newest)

    def age_hours(self, newest: datetime) -> float:
        """For how long the exchange was open since the end of that bar."""
        return self._open_since[bisect_left(self._starts, newest + timedelta(microseconds=1))]


def _symbol(
    market: _Market, stale: datetime, silent: Sequence[str], name: str, newest: datetime | None,
    features_behind: int, missing: int,
) -> Symbol:  # fmt: skip
    if newest is None:
        return Symbol(name, None, None, None, missing, features_behind, "empty")
    behind = market.behind(newest)
    # A bar is an hour of the market; the time in which it is closed makes nobody late.
    freshness: Freshness = "fresh" if behind == 0 else "late" if newest >= stale else "stale"
    freshness = "silent" if name in silent else freshness
    age = round(market.age_hours(newest), 2)
    return Symbol(name, newest, behind, age, missing, features_behind, freshness)


# Health -------------------------------------------------------------------------------------------------


def _health(connection: Connection, runs: dict[str, list[Run]], now: datetime) -> Health:
    size, quarantined, quarantined_day = connection.execute(
        query("monitor/monitor_database"), {"now": now}
    ).fetchone() or (0, 0, 0)
    used, limit = connection.execute(query("alerts/own_connections")).fetchone() or (0, 0)
    alerts = connection.execute(query("monitor/monitor_alerts"), {"most": _SHOWN_ALERTS}).fetchall()
    written = [
        (step.step, run.started_at, step.rows_written)
        for of_dag in runs.values()
        for run in of_dag
        for step in run.steps
    ]
    return Health(
        size,
        used,
        limit,
        [Table(*row) for row in connection.execute(query("monitor/monitor_tables"))],
        [
            Growth(
                step,
                sum(rows for name, at, rows in written if name == step and at >= now - _DAY),
                sum(rows for name, at, rows in written if name == step and at >= now - _WEEK),
            )
            for step in (COLLECT, FEATURES)
        ],
        memory(),
        disks(),
        [RateLimit(*row) for row in connection.execute(query("monitor/monitor_rate_limit"))],
        [OpenAlert(*row[:-1]) for row in alerts],
        alerts[0][-1] if alerts else 0,
        quarantined,
        quarantined_day,
        _last_backup(connection),
    )


def _last_backup(connection: Connection) -> datetime | None:
    row = connection.execute(query("backup/last_backup")).fetchone()
    return row[0] if row else None
