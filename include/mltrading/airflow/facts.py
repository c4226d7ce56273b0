"""Runs and task instances as the mails and the monitor need them, whatever Airflow they come from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

# What a task that will not run, or that nobody waits for, ends as.
NEVER_STARTED = frozenset({"skipped", "upstream_failed", "removed"})
OVER = NEVER_STARTED | {"success", "failed"}


@dataclass(frozen=True)
class RunFacts:
    """A run as a mail needs it. tick: up to which it works. queued_at: when it was made, or cleared.
    grid_url: where the web server shows it.
    """

    dag_id: str
    run_id: str
    run_type: str
    state: str
    tick: datetime
    queued_at: datetime
    grid_url: str


@dataclass(frozen=True)
class InstanceFacts:
    """A task instance. started_at: None also where Airflow does not tell."""

    task_id: str
    map_index: int
    state: str
    started_at: datetime | None
    log_url: str


@dataclass
class Note:
    """The text of `locked_note`; "" = none, and leaving it "" deletes it."""

    text: str


def run_type(dag_run: Any) -> str:
    """`manual`, `scheduled`, `backfill` or another that Airflow knows."""
    return str(getattr(dag_run.run_type, "value", dag_run.run_type))


def latest(runs: list[RunFacts], *, paused: bool) -> dict[str, Any]:
    """What the monitor shows of a DAG: is it paused; its run with the latest tick, None for none."""
    run = max(runs, key=lambda facts: facts.tick, default=None)
    return {
        "paused": paused,
        "run_id": run.run_id if run else None,
        "tick": run.tick.isoformat() if run else None,
        "state": run.state if run else None,
    }
