"""Puts the pages of the market monitor into Airflow's menu, and on Airflow 3 into the tabs of the DAGs."""

from __future__ import annotations

from typing import Any, ClassVar

import airflow
from airflow.plugins_manager import AirflowPlugin

AIRFLOW_2 = airflow.__version__.startswith("2.")
MENU_ITEM = "Market Monitor"
# In the menu's group of pages, and beside a DAG's own tabs.
PLACES = (
    {"destination": "nav", "category": "browse", "url_route": "market-monitor"},
    {"destination": "dag", "url_route": "market-monitor-of-dag"},
)


class MarketMonitorPlugin(AirflowPlugin):
    """Its properties are read by the web server only: tasks, which load plugins too, do not pay for them."""

    name = "mltrading_market_monitor"

    if AIRFLOW_2:

        @property
        def flask_blueprints(self) -> list[Any]:
            from include.mltrading.airflow.airflow2.monitor import blueprint

            return [blueprint]

        @property
        def appbuilder_views(self) -> list[Any]:
            from include.mltrading.airflow.airflow2.monitor import MarketMonitor

            return [{"name": MENU_ITEM, "view": MarketMonitor()}]

    else:
        external_views: ClassVar = [
            {"name": MENU_ITEM, "href": "/market_monitor/", **place} for place in PLACES
        ]

        @property
        def fastapi_apps(self) -> list[Any]:
            from include.mltrading.airflow.airflow3.monitor import app

            return [{"app": app, "url_prefix": "/market_monitor", "name": MENU_ITEM}]
