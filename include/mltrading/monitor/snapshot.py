"""One look at the system's health: pipelines, their performance, fresh data, the system itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from include.mltrading.configuration.deployments import Deployments
from include.mltrading.monitor.figures import (
    PARTS,
    Growth,
    Health,
    OpenAlert,
    Part,
    RateLimit,
    Run,
    Snapshot,
    Table,
)
from include.mltrading.monitor.freshness import data_freshness
from include.mltrading.monitor.machine import disks, memory
from include.mltrading.monitor.runs import DAY, WEEK, FinishedRuns, performance, pipelines, recent_runs
from include.mltrading.pipeline.steps import COLLECT, FEATURES
from include.mltrading.store.connection import Connection, read_only
from include.mltrading.store.migrations import require_current_schema
from include.mltrading.store.queries import query

_SHOWN_ALERTS = 20


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
        runs = {} if set(parts) == {"freshness"} else recent_runs(connection, deployments, now, finished)
        return Snapshot(
            now,
            source,
            "first_run" if first_run else "ok" if bars or tries else "empty",
            pipelines(deployments, runs, now) if "pipelines" in parts else None,
            performance(connection, deployments, runs) if "performance" in parts else None,
            data_freshness(connection, deployments, symbols, now) if "freshness" in parts else None,
            _health(connection, runs, now) if "health" in parts else None,
        )


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
                sum(rows for name, at, rows in written if name == step and at >= now - DAY),
                sum(rows for name, at, rows in written if name == step and at >= now - WEEK),
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
