"""Airflow 3's backfill, which the scheduler runs."""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime

from airflow.models.backfill import Backfill, BackfillDagRun
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from sqlalchemy import select

from include.mltrading.airflow.commands import airflow
from include.mltrading.errors import UsageError


def run_ticks(dag_id: str, first: datetime, last: datetime) -> dict[str, str]:
    """Run the ticks whose intervals begin in the span; run_id -> state, without those that were green before.

    Raises UsageError while another backfill of the DAG is under way, and MLTradingError.
    """
    with create_session() as session:
        known = select(Backfill.id).where(Backfill.dag_id == dag_id)
        if session.scalar(known.where(Backfill.completed_at.is_(None))) is not None:
            raise UsageError(f"a backfill of {dag_id} is under way: wait for its end, or cancel it in the UI")
        before = set(session.scalars(known))
    # One after the other: the DAG's own limit does not hold for a backfill.
    airflow(
        "backfill", "create", "--dag-id", dag_id,
        "--from-date", first.isoformat(), "--to-date", last.isoformat(),
        "--max-active-runs", "1", "--reprocess-behavior", "failed",
    )  # fmt: skip
    with create_session() as session:
        [backfill_id] = set(session.scalars(known)) - before
    told, is_over = "", False
    while not is_over:
        time.sleep(1)
        is_over, states = _look(backfill_id)
        counted = ", ".join(f"{count} {state}" for state, count in sorted(Counter(states.values()).items()))
        if counted != told:
            told = counted
            print(f"{len(states)} runs: {counted}", flush=True)
    return states


def _look(backfill_id: int) -> tuple[bool, dict[str, str]]:
    """Whether the backfill is over; run_id -> state of its runs."""
    completed = select(Backfill.completed_at).where(Backfill.id == backfill_id)
    runs = select(DagRun.run_id, DagRun.state).join(BackfillDagRun, BackfillDagRun.dag_run_id == DagRun.id)
    with create_session() as session:
        # First: what is looked at later is at least as old.
        is_over = session.scalar(completed) is not None
        rows = session.execute(runs.where(BackfillDagRun.backfill_id == backfill_id)).all()
    return is_over, {run_id: str(getattr(state, "value", state)) for run_id, state in rows}
