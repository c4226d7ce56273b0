"""What `check` tells: the data's health with that of the pipelines and the machine, as data and in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from include.mltrading.configuration.deployments import Deployments, load_deployments
from include.mltrading.configuration.settings import Settings
from include.mltrading.configuration.symbols import read_symbols_file
from include.mltrading.monitor.figures import Health, Pipeline, Timing, plain
from include.mltrading.monitor.snapshot import snapshot
from include.mltrading.operations import check
from include.mltrading.store.connection import connect
from include.mltrading.store.queries import query

_SHOWN = 5


@dataclass(frozen=True)
class LeftRunning:
    """A try whose process was killed before anybody recorded how it ended."""

    dag_id: str
    run_id: str
    step: str
    symbol: str
    started_at: datetime


@dataclass(frozen=True)
class Diagnosis:
    """data: see `check.health`. The rest: see the monitor's snapshot."""

    data: dict[str, Any]
    pipelines: list[Pipeline]
    timings: list[Timing]
    system: Health
    left_running: list[LeftRunning]

    def as_document(self) -> dict[str, Any]:
        """One JSON document; run times as in the monitor, without each symbol's costs."""
        rest: dict[str, Any] = plain(
            {
                "pipelines": [asdict(item) for item in self.pipelines],
                "performance": [asdict(item) for item in self.timings],
                "system": asdict(self.system),
                "left_running": [asdict(item) for item in self.left_running],
            }
        )
        return {**self.data, **rest}


def diagnose(settings: Settings) -> Diagnosis:
    """Look once. Raises SchemaError, UsageError or DatabaseError."""
    data = check.health(settings)
    deployments = load_deployments(settings.deployments_file)
    symbols = read_symbols_file(settings.symbols_file)
    # So long may a mapped task of the DAGs take, and as long again passes until nobody can be at work.
    longest = max(timedelta(hours=1), timedelta(minutes=2 * (8 + 2 * settings.symbols_per_task)))
    with connect(settings) as connection:
        left = [
            LeftRunning(*row)
            for row in connection.execute(query("ledger/left_running"), {"longest": longest})
        ]
        seen = snapshot(
            connection, deployments, symbols, datetime.now(UTC), ("pipelines", "performance", "health")
        )
    assert seen.pipelines is not None  # noqa: S101 - asked for, as the two below
    assert seen.performance is not None  # noqa: S101
    assert seen.health is not None  # noqa: S101
    return Diagnosis(data, seen.pipelines, seen.performance.pipelines, seen.health, left)


def in_words(found: Diagnosis, deployments: Deployments) -> list[str]:
    """The pipelines and the system, a line for each thing; one that is over its threshold is marked."""
    limits, system = deployments.alerts.thresholds, found.system

    def mark(wrong: bool) -> str:
        return "  <-- beyond its threshold" if wrong else ""

    lines = []
    for pipeline, timing in zip(found.pipelines, found.timings, strict=True):
        lines.append(f"pipeline        {pipeline.display_name}: {_last_run(pipeline, timing)}")
    used, most = system.connections, system.connections_limit
    lines.append(f"connections     {used} of {most}{mark(used > limits.connections_share * most)}")
    memory = system.memory
    lines.append(
        f"memory          {_gigabytes(memory.free)} of {_gigabytes(memory.total)} GB free"
        f"{mark(memory.free < limits.memory_free_share * memory.total)}"
    )
    for disk in system.disks:
        lines.append(
            f"disk            {_gigabytes(disk.free)} of {_gigabytes(disk.total)} GB free at {disk.folder}"
            f"{mark(disk.free < limits.disk_free_share * disk.total)}"
        )
    largest = ", ".join(f"{table.name} {table.bytes / 1e6:.1f}" for table in system.tables[:3])
    lines.append(f"database size   {system.database_bytes / 1e6:.1f} MB; {largest}")
    grown = "; ".join(f"{item.step} {item.day}, {item.week}" for item in system.growth)
    lines.append(f"growth          rows that runs of the DAGs wrote in the last day, week: {grown}")
    for limit in system.rate_limits:
        if limit.paused_until is not None and limit.paused_until > datetime.now(UTC):
            lines.append(
                f"rate limit      {limit.vendor} asked for a pause until {limit.paused_until:%Y-%m-%d %H:%M}Z"
            )
    lines.append(f"alerts          {system.alerts_open} open; `alerts list` shows them")
    lines.append(f"ledger          {_left(found.left_running)}")
    return lines


def _last_run(pipeline: Pipeline, timing: Timing) -> str:
    run = pipeline.last_run
    if run is None:
        return "never ran"
    served, failed = sum(step.served for step in run.steps), sum(step.failed for step in run.steps)
    took = "still at work" if run.seconds is None else f"{run.seconds:.0f} of {timing.expected_seconds:.0f} s"
    late = run.seconds is not None and run.seconds > timing.limit_seconds
    share = "" if pipeline.week.share is None else f"; {pipeline.week.share:.1%} served in 7 days"
    return f"tick {run.tick:%Y-%m-%d %H:%M}Z {run.state}, {served} served, {failed} failed, {took}{share}" + (
        "  <-- beyond its threshold" if late else ""
    )


def _left(left: list[LeftRunning]) -> str:
    if not left:
        return "no try was left running by a process that was killed"
    shown = ", ".join(f"{item.symbol} ({item.step}, {item.run_id})" for item in left[:_SHOWN])
    more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
    return f"{len(left)} tries left running by processes that were killed: {shown}{more}; clear those runs"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f}"
