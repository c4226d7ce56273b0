"""Looking at the clock while a task works: Airflow 2.11's SLAs see neither manual runs nor first ones.

A thread beside the task wakes when its run becomes late, and every minute; it looks at all three DAGs, so a
run in which no task works is seen by the tasks of the others. A task of less than a minute costs nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from include.mltrading.airflow import compat, late_runs
from include.mltrading.airflow.facts import RunFacts
from include.mltrading.configuration.deployments import load_deployments
from include.mltrading.configuration.settings import Settings

_EVERY_SECONDS = 60.0

log = logging.getLogger(__name__)


@contextmanager
def watched(context: Any) -> Iterator[None]:
    """Look around now, unless many of the same kind do, and while the block lasts."""
    try:
        run = compat.run_facts(context["dag_run"])
        due_at = late_runs.due_at(run, load_deployments(Settings.from_environment().deployments_file))
        mapped = context["ti"].map_index >= 0
    except Exception:
        log.exception("this task is not watched")
        yield
        return
    known: set[str] = set()
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(over, due_at, known, run), name="watch", daemon=True)
    if not mapped:
        late_runs.look_around(known, run)
    thread.start()
    try:
        yield
    finally:
        over.set()


def _watch(over: threading.Event, due_at: datetime, known: set[str], run: RunFacts) -> None:
    while True:
        left = (due_at - datetime.now(UTC)).total_seconds()
        # A little later, so that it is late by then.
        if over.wait(left + 0.5 if 0 < left < _EVERY_SECONDS else _EVERY_SECONDS):
            return
        late_runs.look_around(known, run)
