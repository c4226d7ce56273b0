"""What the project asks of Airflow 2.11: its tables, also from a task; SLAs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from airflow.configuration import conf
from airflow.models import DagModel, DagRun, TaskInstance, XCom
from airflow.models.variable import Variable
from airflow.timetables.interval import CronDataIntervalTimetable
from airflow.utils.session import create_session

from include.mltrading.airflow.facts import (
    NEVER_STARTED,
    OVER,
    InstanceFacts,
    Note,
    RunFacts,
    latest,
    run_type,
)

# A gate that waits gives its place away.
GATE_MODE = "reschedule"


def timetable(cron: str, timezone: str) -> CronDataIntervalTimetable:
    """A schedule whose runs cover the interval before their tick."""
    # Not CronTriggerTimetable: SLAs are only right where a run covers the interval before its tick.
    return CronDataIntervalTimetable(cron, timezone)


def dag_lateness(limit: timedelta) -> dict[str, Any]:
    """The arguments of DAG() by which somebody hears of a run that takes longer than the limit."""
    from include.mltrading.airflow.airflow2.missed_ticks import on_sla_miss

    return {"sla_miss_callback": on_sla_miss}


def task_lateness(limit: timedelta) -> dict[str, Any]:
    """The arguments of the task that has to be done within the limit after the tick."""
    return {"sla": limit}


def window_end(dag_run: Any) -> datetime:
    """The instant up to which a run works; the same again when the run is cleared.

    The end of the data interval, and for a manual run the instant for which it was triggered.
    """
    instant: datetime = dag_run.logical_date if run_type(dag_run) == "manual" else dag_run.data_interval_end
    return instant


def run_exists(dag_id: str, logical_date: datetime) -> bool:
    """Whether the DAG has a run for the logical date, whatever its state."""
    return bool(DagRun.find(dag_id=dag_id, execution_date=logical_date))


def is_paused(dag_id: str) -> bool:
    """Whether the DAG is paused; one that Airflow does not know counts as paused."""
    model = DagModel.get_dagmodel(dag_id)
    return model is None or bool(model.is_paused)


def was_attempted(context: Mapping[str, Any], task_id: str) -> bool:
    """Whether any instance of a task of the same run was started."""
    states = {
        instance.state for instance in context["dag_run"].get_task_instances() if instance.task_id == task_id
    }
    return bool(states - NEVER_STARTED - {None})


def run_facts(dag_run: Any) -> RunFacts:
    """What a mail tells of a run."""
    tick, base = window_end(dag_run), conf.get("webserver", "base_url")
    return RunFacts(
        dag_id=dag_run.dag_id,
        run_id=dag_run.run_id,
        run_type=run_type(dag_run),
        state=str(dag_run.state),
        tick=tick,
        queued_at=dag_run.queued_at or dag_run.start_date or tick,
        grid_url=f"{base}/dags/{dag_run.dag_id}/grid?dag_run_id={quote(dag_run.run_id)}",
    )


def active_runs(dag_ids: Collection[str], own: RunFacts | None) -> list[RunFacts]:
    """The runs of these DAGs that are not over, in the order in which they were made; `own` is not needed."""
    with create_session() as session:
        runs = session.query(DagRun).filter(
            DagRun.dag_id.in_(dag_ids), DagRun.state.in_(["queued", "running"])
        )
        return [run_facts(run) for run in runs.order_by(DagRun.id)]


def runs_of_ticks(dag_id: str, ticks: Collection[datetime]) -> dict[datetime, RunFacts]:
    """The scheduled or backfill run that works up to each tick; ticks that never ran are absent."""
    with create_session() as session:
        runs = session.query(DagRun).filter(
            DagRun.dag_id == dag_id, DagRun.data_interval_end.in_(ticks), DagRun.run_type != "manual"
        )
        return {run.data_interval_end: run_facts(run) for run in runs}


def instances(dag_id: str, run_id: str, *, state: str | None = None) -> list[InstanceFacts]:
    """The run's task instances of a state (None: of those that are not over), in the order of the grid."""
    with create_session() as session:
        found = session.query(TaskInstance).filter(
            TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id
        )
        return [
            InstanceFacts(
                it.task_id, it.map_index, str(it.state or "not started"), it.start_date, it.log_url
            )
            for it in found.order_by(TaskInstance.task_id, TaskInstance.map_index)
            if (it.state == state if state else it.state not in OVER)
        ]  # fmt: skip


def result_of(dag_id: str, run_id: str, task_id: str) -> Any:
    """What a task of a run returned; None when nothing."""
    with create_session() as session:
        return XCom.get_one(dag_id=dag_id, run_id=run_id, task_id=task_id, session=session)


def overdue_ticks(dag_ids: Collection[str]) -> list[tuple[str, datetime]]:
    """(dag_id, tick) of the next tick of each DAG that is not paused and has no run for it yet.

    None of a DAG that waits for the end of an earlier run.
    """
    with create_session() as session:
        models = session.query(DagModel).filter(
            DagModel.dag_id.in_(dag_ids),
            DagModel.is_paused.is_(False),
            DagModel.next_dagrun_create_after.isnot(None),
        )
        return [(model.dag_id, model.next_dagrun_create_after) for model in models]


@contextmanager
def locked_note(name: str) -> Iterator[Note]:
    """A text that all processes share, kept in Airflow's database; nobody else has it during the block."""
    from sqlalchemy.exc import IntegrityError  # type: ignore[import-untyped]

    with create_session() as session:
        try:
            with session.begin_nested():
                session.add(Variable(key=name, val=""))  # type: ignore[no-untyped-call]
        except IntegrityError:
            pass  # it is there
        row = session.query(Variable).filter_by(key=name).with_for_update().one()
        note = Note(row.val or "")
        yield note
        if note.text:
            row.val = note.text
        else:
            session.delete(row)


def has_note(name: str) -> bool:
    """Whether there is such a note."""
    with create_session() as session:
        return session.query(Variable.id).filter_by(key=name).first() is not None


def newest_runs(dag_ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """Per DAG what the monitor shows of it, see `facts.latest`."""
    found: dict[str, dict[str, Any]] = {}
    with create_session() as session:
        for dag_id in dag_ids:
            runs = session.query(DagRun).filter(DagRun.dag_id == dag_id)
            # A manual run's logical date is its tick, another's is a period before: look at more than one.
            last = [run_facts(run) for run in runs.order_by(DagRun.execution_date.desc()).limit(5)]
            found[dag_id] = latest(last, paused=is_paused(dag_id))
    return found


def map_index_of(dag_id: str, run_id: str, task_id: str, symbol: str) -> int | None:
    """The mapped instance of a task whose name in the grid lists the symbol; None when none has started."""
    with create_session() as session:
        found = session.query(TaskInstance.map_index, TaskInstance.rendered_map_index).filter(
            TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.task_id == task_id
        )
        return next((index for index, label in found if label and symbol in label.split(", ")), None)
