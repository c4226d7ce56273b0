"""What Airflow's metadata database says of DAGs and their runs, and waiting for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg

from include.mltrading.configuration.deployments import COLLECTION as COLLECTION
from include.mltrading.configuration.deployments import FEATURES as FEATURES
from include.mltrading.configuration.deployments import LOAD as LOAD
from include.standalone.airflow import MAJOR
from include.standalone.stack import Stack
from include.standalone.state import StandaloneError

_MINUTES = 30

_RUN = """
SELECT run_id, state, data_interval_end, start_date, end_date
FROM dag_run
WHERE dag_id = %s AND (run_id = %s OR %s::text IS NULL) AND (run_type = %s OR %s::text IS NULL)
ORDER BY {order} DESC LIMIT 1
""".format(order="execution_date" if MAJOR == 2 else "run_after")
# A mapped task stands once, with map index -1, until it is known how many instances it has.
_TASKS = """
SELECT task_id, count(*),
    count(*) FILTER (WHERE state IN ('success', 'failed', 'skipped', 'upstream_failed')),
    count(*) FILTER (WHERE state IN ('failed', 'upstream_failed'))
FROM task_instance
WHERE dag_id = %s AND run_id = %s
GROUP BY task_id
ORDER BY min(start_date) NULLS LAST
"""


def connect_metadata(stack: Stack) -> psycopg.Connection[Any]:
    """A connection to the stack's Airflow metadata database, for reading."""
    return psycopg.connect(stack.postgres.url(stack.metadata_database), autocommit=True)


@dataclass(frozen=True)
class DagRun:
    """A run as the scheduler sees it. tick: the end of its data interval."""

    dag_id: str
    run_id: str
    state: str
    tick: datetime
    begun: datetime | None
    ended: datetime | None

    @property
    def over(self) -> bool:
        """Whether it has ended, well or badly."""
        return self.state in ("success", "failed")

    @property
    def duration(self) -> timedelta:
        """How long it took; zero while it has not ended."""
        return self.ended - self.begun if self.begun and self.ended else timedelta()


def newest_run(
    metadata: psycopg.Connection[Any], dag_id: str, *, run_id: str | None = None, run_type: str | None = None
) -> DagRun | None:
    """The newest run of a DAG, of that id or type where one is given."""
    row = metadata.execute(_RUN, (dag_id, run_id, run_id, run_type, run_type)).fetchone()
    return DagRun(dag_id, *row) if row else None


def progress(metadata: psycopg.Connection[Any], run: DagRun) -> str:
    """Ended of all instances for each task that has begun, in one line."""
    parts = []
    for task_id, instances, ended, failed in metadata.execute(_TASKS, (run.dag_id, run.run_id)):
        if ended or instances > 1:
            parts.append(f"{task_id} {ended}/{instances}" + (f" ({failed} failed)" if failed else ""))
    return ", ".join(parts) or "starting"


def parsed(metadata: psycopg.Connection[Any], dag_ids: Sequence[str] = (LOAD, COLLECTION, FEATURES)) -> bool:
    """Whether the scheduler knows all the DAGs. Raises StandaloneError when a file cannot be loaded."""
    error = metadata.execute("SELECT filename, stacktrace FROM import_error").fetchone()
    if error is not None:
        filename, trace = error
        raise StandaloneError(f"a DAG file cannot be loaded: {filename}: {trace.strip().splitlines()[-1]}")
    row = metadata.execute(
        "SELECT count(*) FROM serialized_dag WHERE dag_id = ANY (%s)", (list(dag_ids),)
    ).fetchone()
    return row is not None and row[0] == len(dag_ids)


def until(stack: Stack, what: str, probe: Callable[[], Any]) -> Any:
    """The first true answer of the probe, within half an hour. Raises StandaloneError."""
    give_up = time.monotonic() + 60 * _MINUTES
    while not (found := probe()):
        if time.monotonic() > give_up:
            raise StandaloneError(f"waited {_MINUTES} minutes in vain for {what}: see {stack.state / 'logs'}")
        stack.check()
        time.sleep(0.5)
    return found
