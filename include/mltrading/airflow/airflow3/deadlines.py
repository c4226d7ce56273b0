"""Runs that take too long, as Airflow 3's Deadline Alerts tell of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from airflow.sdk.definitions.deadline import BaseDeadlineReference, DeadlineReference, deadline_reference

from include.mltrading.airflow.airflow3.runs import ACTIVE, run_facts
from include.mltrading.airflow.late_runs import look_around


@deadline_reference(DeadlineReference.TYPES.DAGRUN_QUEUED)
class WhenQueued(BaseDeadlineReference):
    """The instant at which a run was made.

    Airflow's own DAGRUN_QUEUED_AT makes it impossible to clear a run that is not over
    (https://github.com/apache/airflow/issues/70368).
    """

    required_kwargs = frozenset({"dag_id", "run_id"})

    def _evaluate_with(self, *, session: Any, dag_id: str, run_id: str) -> datetime | None:
        from airflow.models import DagRun
        from sqlalchemy import select

        queued_at = select(DagRun.queued_at).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)
        instant: datetime | None = session.scalar(queued_at)
        return instant


async def on_deadline(context: Mapping[str, Any]) -> None:
    """A run has passed its deadline, in the triggerer; it may be over, or have been cleared since."""
    await asyncio.to_thread(_run_is_late, context["dag_run"])


def _run_is_late(told: Mapping[str, Any]) -> None:
    """told: the run as the REST API shows it."""
    instants = ("data_interval_end", "logical_date", "queued_at", "run_after", "start_date")
    plain = {name: datetime.fromisoformat(str(told[name])) if told.get(name) else None for name in instants}
    run = run_facts(SimpleNamespace(**{**told, **plain}))
    if run.state in ACTIVE:
        look_around(set(), run)
