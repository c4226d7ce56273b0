"""Puts the project's check of what is typed before Airflow's trigger form and its REST API."""

from __future__ import annotations

from typing import Any

import airflow
from airflow.plugins_manager import AirflowPlugin

AIRFLOW_2 = airflow.__version__.startswith("2.")


class TriggerGuardPlugin(AirflowPlugin):
    """Its properties are read by the web server only: tasks, which load plugins too, do not pay for them."""

    name = "mltrading_trigger_guard"

    if AIRFLOW_2:

        @property
        def flask_blueprints(self) -> list[Any]:
            from include.mltrading.airflow.airflow2.trigger_guard import blueprint

            return [blueprint]

    else:

        @property
        def fastapi_root_middlewares(self) -> list[Any]:
            from include.mltrading.airflow.airflow3.trigger_guard import TriggerGuard

            return [{"middleware": TriggerGuard, "args": [], "kwargs": {}, "name": self.name}]
