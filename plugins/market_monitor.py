"""Puts the page of include/mltrading/airflow/monitor_page.py into the menu of Airflow 2.11."""

from __future__ import annotations

from typing import Any

import airflow
from airflow.plugins_manager import AirflowPlugin


class MarketMonitorPlugin(AirflowPlugin):
    """On Airflow 3, which has no such pages, it adds nothing."""

    name = "mltrading_market_monitor"

    # Read by the web server only: a task's process, which loads plugins too, does not pay for Flask.
    @property
    def flask_blueprints(self) -> list[Any]:
        if not airflow.__version__.startswith("2."):
            return []
        from include.mltrading.airflow.monitor_page import blueprint

        return [blueprint]

    @property
    def appbuilder_views(self) -> list[Any]:
        if not airflow.__version__.startswith("2."):
            return []
        from include.mltrading.airflow.monitor_page import MENU_ITEM, MarketMonitor

        return [{"name": MENU_ITEM, "view": MarketMonitor()}]
