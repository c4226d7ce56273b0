"""What differs between Airflow's majors, in one place. Today: 2.11."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from airflow.models import DagModel, DagRun


def run_type(dag_run: Any) -> str:
    """`manual`, `scheduled`, `backfill` or `dataset_triggered`."""
    return str(getattr(dag_run.run_type, "value", dag_run.run_type))


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
    return bool(states - {"skipped", "upstream_failed", "removed", None})
