"""How deployments.yaml becomes the arguments of a DAG."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any

from include.mltrading.airflow import compat
from include.mltrading.airflow.alerts import on_failure, on_success
from include.mltrading.configuration.deployments import DagId, Deployments


def dag_arguments(deployments: Deployments, dag_id: DagId) -> dict[str, Any]:
    """Keyword arguments of DAG() beside its id and schedule: names, tags and the defaults of its tasks."""
    deployment, pipeline = deployments.deployments[dag_id], deployments.pipeline
    start = datetime.combine(pipeline.start_date, time(), tzinfo=UTC)
    return {
        "dag_display_name": deployment.display_name,
        "description": deployments.schedule(dag_id).description,
        "start_date": start,
        "catchup": False,
        "max_active_runs": 1,
        "on_success_callback": on_success,
        "on_failure_callback": on_failure,
        **compat.dag_lateness(deployments.sla(dag_id)),
        "tags": [*pipeline.tags, deployment.category, deployment.schedule_type],
        "default_args": {
            "owner": pipeline.owner,
            # Only here `airflow dags trigger` looks for it; an earlier run would be green without any task.
            "start_date": start,
            "retries": pipeline.retries,
            "retry_delay": timedelta(seconds=pipeline.retry_delay_seconds),
            "retry_exponential_backoff": True,
            "max_retry_delay": timedelta(minutes=10),
            "priority_weight": priority_weight(deployments, dag_id),
            # A task's own weight counts, not how many tasks stand behind it.
            "weight_rule": "absolute",
        },
    }


def timetable(deployments: Deployments, dag_id: DagId) -> Any:
    """The DAG's schedule; None for a DAG that only people start."""
    schedule = deployments.schedule(dag_id)
    return compat.timetable(schedule.cron, schedule.timezone) if schedule.cron else None


def priority_weight(deployments: Deployments, dag_id: DagId) -> int:
    """Who goes first in a pool: a market hour's work before work that a person started, then by priority."""
    weight = 100 - deployments.deployments[dag_id].priority
    return weight if deployments.schedule(dag_id).cron is None else 100 + weight
