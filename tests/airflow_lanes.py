"""What Airflow's majors call differently, for tests of both.

Nothing of the project is imported here: tests look at what its DAG files load.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import airflow
import pytest

MAJOR = int(airflow.__version__.partition(".")[0])
on_2 = pytest.mark.skipif(MAJOR != 2, reason="about Airflow 2.11 alone")
on_3 = pytest.mark.skipif(MAJOR != 3, reason="about Airflow 3 alone")

if MAJOR == 2:
    from airflow.models import DagBag
    from airflow.models.mappedoperator import MappedOperator as MappedOperator
    from airflow.serialization.serialized_objects import SerializedDAG

    def stored(dag: Any) -> Any:
        """The DAG as the scheduler reads it from the database."""
        return SerializedDAG.from_dict(SerializedDAG.to_dict(dag))

    _NO_EXAMPLES = {"include_examples": False}
else:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk.definitions.mappedoperator import MappedOperator as MappedOperator
    from airflow.serialization.serialized_objects import DagSerialization

    def stored(dag: Any) -> Any:
        """The DAG as the scheduler reads it from the database."""
        return DagSerialization.from_dict(DagSerialization.to_dict(dag))

    _NO_EXAMPLES = {}


def load_dags(folder: Path = Path(__file__).parents[1] / "dags") -> Any:
    """The DAG files as Airflow parses them, with their import errors."""
    return DagBag(folder, safe_mode=False, **_NO_EXAMPLES)


def limit_of(dag: Any) -> Any:
    """How long a run of the DAG may take before it is told as late."""
    if MAJOR == 2:
        return dag.get_task("publish_bars").sla
    [deadline] = dag.deadline
    return deadline.interval


def before_work(task: Any, context: Any) -> None:
    """What Airflow does before the task's own work."""
    hook = task.pre_execute if MAJOR == 2 else task._pre_execute_hook
    hook(context)


def mapped_over(task: Any) -> int:
    """The number of instances of a task that is mapped over a list of batches of symbols."""
    return len(task.expand_input.value["symbols"])


def schedule_of(dag: Any) -> tuple[str, str]:
    """The DAG's cron expression and its time zone."""
    timetable = dag.timetable
    if MAJOR == 2:
        return timetable.summary, str(timetable._timezone)
    return timetable.expression, str(timetable.timezone)
