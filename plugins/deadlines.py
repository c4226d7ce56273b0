"""Tells Airflow 3 from when on the DAGs' runs are measured; Airflow 2.11 has SLAs instead."""

from __future__ import annotations

from typing import ClassVar

import airflow
from airflow.plugins_manager import AirflowPlugin

if not airflow.__version__.startswith("2."):
    from include.mltrading.airflow.airflow3.deadlines import WhenQueued

    class DeadlinesPlugin(AirflowPlugin):
        """Without it each trigger of a DAG is refused, since its reference is not known."""

        name = "mltrading_deadlines"
        deadline_references: ClassVar = [WhenQueued]
