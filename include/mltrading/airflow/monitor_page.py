"""The page "Market Monitor" of Airflow 2.11 and its data, for everybody who may see the website."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import psycopg
from airflow.auth.managers.models.resource_details import AccessView
from airflow.exceptions import AirflowException
from airflow.www.auth import has_access_view
from flask import Blueprint
from flask.blueprints import BlueprintSetupState
from flask_appbuilder import BaseView, expose  # type: ignore[import-untyped]
from psycopg.conninfo import make_conninfo

from include.mltrading.airflow.connection import CONNECTION_ID, libpq_keywords
from include.mltrading.config import load_deployments
from include.mltrading.errors import MLTradingError, SchemaError
from include.mltrading.market.symbols import read_symbols_file
from include.mltrading.monitor.snapshot import snapshot
from include.mltrading.settings import PROJECT_ROOT, Settings

MENU_ITEM = "Market Monitor"
_CONNECT = {"connect_timeout": "5", "application_name": "mltrading monitor"}
# A page must not wait for long, nor hold the database up.
_OPTIONS = "-c timezone=UTC -c statement_timeout=5s -c lock_timeout=1s"

log = logging.getLogger(__name__)

blueprint = Blueprint(
    "market_monitor",
    __name__,
    template_folder=str(PROJECT_ROOT / "plugins" / "templates"),
    static_folder=str(PROJECT_ROOT / "plugins" / "static"),
    static_url_path="/market_monitor/static",
)


class MarketMonitor(BaseView):  # type: ignore[misc]
    """`/market_monitor/` and `/market_monitor/data`; both send anonymous users to the login."""

    route_base = "/market_monitor"
    default_view = "page"

    @expose("/")  # type: ignore[untyped-decorator]
    @has_access_view(AccessView.WEBSITE)
    def page(self) -> Any:
        """The page, which fetches its data."""
        return self.render_template("market_monitor.html", title=MENU_ITEM)

    @expose("/data")  # type: ignore[untyped-decorator]
    @has_access_view(AccessView.WEBSITE)
    def data(self) -> Any:
        """The snapshot with status 200, or 503 with a state and a message in its place."""
        document, status = monitor_data(datetime.now(UTC))
        return document, status, {"Cache-Control": "no-store"}


def monitor_data(now: datetime) -> tuple[dict[str, Any], int]:
    """The page's data and its HTTP status. state: ok, empty, no_schema, down or misconfigured."""
    as_of = now.isoformat()
    try:
        settings = Settings.from_environment()
        deployments = load_deployments(settings.deployments_file)
        symbols = read_symbols_file(settings.symbols_file)
    except MLTradingError as error:
        return {"state": "misconfigured", "as_of": as_of, "message": str(error)}, 503
    refresh = min(
        deployments.dashboard.refresh_intervals.pipeline_status,
        deployments.dashboard.refresh_intervals.data_freshness,
    )
    common = {"as_of": as_of, "refresh_seconds": refresh}
    try:
        keywords = libpq_keywords()
        keywords |= _CONNECT | {"options": f"{keywords.get('options', '')} {_OPTIONS}"}
        with psycopg.connect(make_conninfo(**keywords), autocommit=True) as connection:
            found = snapshot(connection, deployments, symbols, now)
    except SchemaError as error:
        return common | {"state": "no_schema", "message": str(error)}, 503
    except (psycopg.Error, AirflowException) as error:
        # Not to everybody who may look: the text can name hosts and users.
        log.warning("The market database does not answer: %s", error)
        message = (
            f"the market database does not answer: start it or correct the connection {CONNECTION_ID}; "
            "the web server's log has the reason"
        )
        return common | {"state": "down", "message": message}, 503
    if found.empty:
        load = deployments.deployments["complete-data-and-features-ondemand"].display_name
        common["message"] = f"the database is empty: trigger the DAG {load} to load the first bars"
    return common | {"state": "empty" if found.empty else "ok", **found.as_document()}, 200


@blueprint.record_once
def _show_in_menu(state: BlueprintSetupState) -> None:
    """Let every standard role see the menu item; Airflow gives a plugin's items to Admin only."""
    manager = getattr(state.app, "appbuilder").sm  # noqa: B009 - Flask does not know the attribute
    permission = manager.get_permission("menu_access", MENU_ITEM)
    for name in ("Viewer", "User", "Op"):
        role = manager.find_role(name)
        if role is not None and permission is not None and permission not in role.permissions:
            manager.add_permission_to_role(role, permission)
