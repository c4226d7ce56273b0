"""What the tests need Airflow 3's own code for, see airflow_side.py; its runs need a scheduler."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from commands import answer_commands  # isort: skip - takes the output over, before Airflow prints

from airflow.api.common.trigger_dag import trigger_dag
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.sdk import timezone
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import select


def plant(dag: Any, tick: str) -> str:
    """A queued scheduled run of a past tick, exactly as the scheduler would have created it; its run id."""
    interval = dag.timetable.infer_manual_data_interval(run_after=datetime.fromisoformat(tick))
    assert interval.end == datetime.fromisoformat(tick), f"{tick} is no tick of {dag.dag_id}"
    return _create(dag, interval, DagRunState.QUEUED)


def trigger(dag: Any, run_id: str, conf: dict[str, Any]) -> None:
    """Trigger a run as `airflow dags trigger` does."""
    trigger_dag(dag.dag_id, triggered_by=DagRunTriggeredByType.CLI, run_id=run_id, conf=conf)


def clear(dag: Any, run_id: str, from_task: str | None) -> int:
    """Clear a run, or one task of it and all that come after, as the UI's button does; how many instances."""
    tasks = None
    if from_task is not None:
        tasks = dag.partial_subset([from_task], include_upstream=False, include_downstream=True).task_ids
    return int(dag.clear(run_id=run_id, task_ids=tasks))


def occupy(dag: Any, count: int, since: str | None = None) -> None:
    """Mark the DAG's next ticks as done, so that the scheduler creates no runs of its own meanwhile.

    since: those after this instant too.
    """
    now = timezone.utcnow()
    begin = datetime.fromisoformat(since) if since else now
    infos = dag.iter_dagrun_infos_between(begin - timedelta(days=5), now + timedelta(days=5))
    after = [info for info in infos if info.data_interval.end > begin]
    coming = [info for info in after if info.data_interval.end > now][:count]
    for info in [info for info in after if info.data_interval.end <= now] + coming:
        known = select(DagRun.id).where(DagRun.dag_id == dag.dag_id, DagRun.logical_date == info.logical_date)
        with create_session() as session:
            there = session.scalar(known)
        if there is None:
            _create(dag, info.data_interval, DagRunState.SUCCESS)


def _create(dag: Any, interval: Any, state: DagRunState) -> str:
    run_id = dag.timetable.generate_run_id(
        run_type=DagRunType.SCHEDULED, run_after=interval.end, data_interval=interval
    )
    dag.create_dagrun(
        run_id=run_id,
        run_type=DagRunType.SCHEDULED,
        logical_date=interval.start,
        data_interval=interval,
        run_after=interval.end,
        triggered_by=DagRunTriggeredByType.TIMETABLE,
        state=state,
    )
    return str(run_id)


if __name__ == "__main__":
    answer_commands(
        SerializedDagModel.get_dag, {"plant": plant, "trigger": trigger, "clear": clear, "occupy": occupy}
    )
