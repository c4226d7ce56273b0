"""What the project asks of Airflow 3: its task API, since a task, callback or trigger has no database.

Only the two functions of the monitor, which runs in the API server, look into Airflow's tables.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow.configuration import AIRFLOW_HOME, conf
from airflow.sdk import AsyncCallback, CronDataIntervalTimetable, DeadlineAlert, Variable
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from include.mltrading.airflow.facts import (
    NEVER_STARTED,
    OVER,
    InstanceFacts,
    Note,
    RunFacts,
    latest,
    run_type,
)
from include.mltrading.configuration.deployments import COLLECTION, FEATURES, load_deployments

# A sensor that gives its place away can be taken for failed while it is put back into the queue
# (https://github.com/apache/airflow/issues/71172).
GATE_MODE = "poke"
ACTIVE = ["queued", "running"]
_MAPPED = re.compile(r"(.+)_(\d+)")


def timetable(cron: str, timezone: str) -> CronDataIntervalTimetable:
    """A schedule whose runs cover the interval before their tick."""
    return CronDataIntervalTimetable(cron, timezone=timezone)


def dag_lateness(limit: timedelta) -> dict[str, Any]:
    """The arguments of DAG() by which somebody hears of a run that takes longer than the limit."""
    from include.mltrading.airflow.airflow3.deadlines import WhenQueued, on_deadline

    # Not a SyncCallback: its process is refused the connections that are stored in Airflow.
    return {"deadline": DeadlineAlert(WhenQueued(), limit, AsyncCallback(on_deadline))}


def task_lateness(limit: timedelta) -> dict[str, Any]:
    """The arguments of the task that has to be done within the limit: none, the DAG's deadline is enough."""
    return {}


def window_end(dag_run: Any) -> datetime:
    """The instant up to which a run works; the same again when the run is cleared.

    The end of the data interval, and for a manual run the instant for which it was triggered.
    """
    if run_type(dag_run) != "manual" and dag_run.data_interval_end is not None:
        instant: datetime = dag_run.data_interval_end
        return instant
    instant = dag_run.logical_date or dag_run.run_after
    return instant


def run_exists(dag_id: str, logical_date: datetime) -> bool:
    """Whether the DAG has a run for the logical date, whatever its state."""
    return RuntimeTaskInstance.get_dr_count(dag_id, logical_dates=[logical_date]) > 0


def is_paused(dag_id: str) -> bool:
    """Whether the DAG is paused."""
    return RuntimeTaskInstance.get_dag(dag_id).is_paused


def was_attempted(context: Mapping[str, Any], task_id: str) -> bool:
    """Whether any instance of a task of the same run was started."""
    run = context["dag_run"]
    states = set(_states(run.dag_id, run.run_id, [task_id]).values())
    return bool(states - NEVER_STARTED - {None})


def run_facts(dag_run: Any) -> RunFacts:
    """What a mail tells of a run."""
    tick = window_end(dag_run)
    return RunFacts(
        dag_id=dag_run.dag_id,
        run_id=dag_run.run_id,
        run_type=run_type(dag_run),
        state=str(getattr(dag_run.state, "value", dag_run.state)),
        tick=tick,
        # A task is not told when its run was made.
        queued_at=getattr(dag_run, "queued_at", None) or dag_run.start_date or tick,
        grid_url=_run_url(dag_run.dag_id, dag_run.run_id),
    )


def _run_url(dag_id: str, run_id: str) -> str:
    return f"{conf.get('api', 'base_url').rstrip('/')}/dags/{dag_id}/runs/{quote(run_id)}"


def active_runs(dag_ids: Collection[str], own: RunFacts | None) -> list[RunFacts]:
    """The run that asks, and the one that waits for it or that it waits for, where that is not over.

    Airflow tells nobody which runs there are, only how it fares with one that is named.
    """
    if own is None:
        return []
    other = _other_half(own)
    found = [own]
    if other is not None and RuntimeTaskInstance.get_dr_count(
        other.dag_id, run_ids=[other.run_id], states=ACTIVE
    ):
        found.append(other)
    return [run for run in found if run.dag_id in dag_ids]


def _other_half(own: RunFacts) -> RunFacts | None:
    """The features run of a collection's tick, or the collection of features' tick."""
    if own.run_type != "scheduled" or own.dag_id not in (COLLECTION, FEATURES):
        return None
    deployments = load_deployments()
    if own.dag_id == COLLECTION:
        dag_id, tick = FEATURES, deployments.schedule(FEATURES).tick_after(own.tick)
    else:
        dag_id, tick = COLLECTION, deployments.schedule(COLLECTION).tick_until(own.tick)
    run_id = f"scheduled__{tick.isoformat()}"
    # When it was made is not known: only its own tasks and deadline can tell that it is late.
    now = datetime.now(UTC)
    return RunFacts(dag_id, run_id, "scheduled", "running", tick, now, _run_url(dag_id, run_id))


def instances(dag_id: str, run_id: str, *, state: str | None = None) -> list[InstanceFacts]:
    """The run's task instances of a state (None: of those that are not over), in the order of the grid."""
    found = []
    for name, its_state in _states(dag_id, run_id).items():
        if (its_state != state) if state else (its_state in OVER):
            continue
        mapped = _MAPPED.fullmatch(name)
        task_id, index = (mapped[1], int(mapped[2])) if mapped else (name, -1)
        place = f"/tasks/{task_id}/mapped/{index}" if mapped else f"/tasks/{task_id}"
        url = f"{_run_url(dag_id, run_id)}{place}"
        found.append(InstanceFacts(task_id, index, its_state or "not started", None, url))
    return sorted(found, key=lambda it: (it.task_id, it.map_index))


def _states(dag_id: str, run_id: str, task_ids: list[str] | None = None) -> dict[str, str | None]:
    """`task_id`, of a mapped instance `task_id_0`, -> its state; None before it is scheduled."""
    states = RuntimeTaskInstance.get_task_states(dag_id, task_ids=task_ids, run_ids=[run_id])
    return dict(states.get(run_id, {}))


def result_of(dag_id: str, run_id: str, task_id: str) -> Any:
    """What a task of a run returned; None when nothing."""
    return BaseXCom.get_one(key="return_value", dag_id=dag_id, run_id=run_id, task_id=task_id)


def overdue_ticks(dag_ids: Collection[str]) -> list[tuple[str, datetime]]:
    """(dag_id, tick) of the next tick of each DAG that is not paused and has no run for it yet.

    None of a DAG that waits for the end of an earlier run.
    """
    found = []
    for dag_id in dag_ids:
        dag = RuntimeTaskInstance.get_dag(dag_id)
        schedule = load_deployments().schedule(dag_id)  # type: ignore[arg-type]
        if dag.is_paused or dag.next_dagrun is None or schedule.cron is None:
            continue
        tick = schedule.tick_after(dag.next_dagrun)  # it names the beginning of the run's interval
        if tick <= datetime.now(UTC) and not RuntimeTaskInstance.get_dr_count(dag_id, states=ACTIVE):
            found.append((dag_id, tick))
    return found


@contextmanager
def locked_note(name: str) -> Iterator[Note]:
    """A text that all processes share, an Airflow variable; nobody else of this machine has it meanwhile."""
    with (Path(AIRFLOW_HOME) / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = Variable.get(name, default="")
        note = Note(before)
        yield note
        if note.text:
            Variable.set(name, note.text)
        elif before:
            Variable.delete(name)


def has_note(name: str) -> bool:
    """Whether there is such a note."""
    return Variable.get(name, default=None) is not None


def newest_runs(dag_ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """Per DAG what the monitor shows of it, see `facts.latest`. In the API server only."""
    from airflow.models import DagModel, DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    found: dict[str, dict[str, Any]] = {}
    with create_session() as session:
        for dag_id in dag_ids:
            runs = select(DagRun).where(DagRun.dag_id == dag_id).order_by(DagRun.run_after.desc()).limit(5)
            model = session.get(DagModel, dag_id)
            paused = model is None or bool(model.is_paused)
            found[dag_id] = latest([run_facts(run) for run in session.scalars(runs)], paused=paused)
    return found


def map_index_of(dag_id: str, run_id: str, task_id: str, symbol: str) -> int | None:
    """The mapped instance of a task whose name in the grid lists the symbol; None when none has started.

    In the API server only.
    """
    from airflow.models import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    mapped = select(TaskInstance.map_index, TaskInstance.rendered_map_index).where(
        TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.task_id == task_id
    )
    with create_session() as session:
        labels = session.execute(mapped).all()
    return next((index for index, label in labels if label and symbol in label.split(", ")), None)
