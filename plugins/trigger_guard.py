"""Puts the check of include/mltrading/airflow/trigger_guard.py before Airflow 2.11's trigger form."""

from __future__ import annotations

from typing import Any

import airflow
from airflow.plugins_manager import AirflowPlugin


class TriggerGuardPlugin(AirflowPlugin):
    """On Airflow 3, which has another form, it adds nothing."""

    name = "mltrading_trigger_guard"

    # Read by the web server only: a task's process, which loads plugins too, does not pay for Flask.
    @property
    def flask_blueprints(self) -> list[Any]:
        if not airflow.__version__.startswith("2."):
            return []
        from include.mltrading.airflow.trigger_guard import blueprint

        return [blueprint]
