"""The pages of the market monitor in Airflow 2.11, for everybody who may see the website."""

from __future__ import annotations

from typing import Any

from airflow.auth.managers.models.resource_details import AccessView
from airflow.www.auth import has_access_view
from flask import Blueprint, redirect, request, send_from_directory, url_for
from flask.blueprints import BlueprintSetupState
from flask_appbuilder import BaseView, expose  # type: ignore[import-untyped]

from include.mltrading.airflow.airflow2.runs import map_index_of
from include.mltrading.airflow.monitor_page import (
    MENU_ITEM,
    NEVER_STORED,
    PLUGINS,
    asked_data,
    asked_symbol,
    health_answer,
    kept_seconds,
)

blueprint = Blueprint("market_monitor", __name__, template_folder=str(PLUGINS / "templates"))


class MarketMonitor(BaseView):  # type: ignore[misc]
    """`/market_monitor/…`: everything but `health` sends anonymous users to the login; nothing writes."""

    route_base = "/market_monitor"
    default_view = "page"

    @expose("/")  # type: ignore[untyped-decorator]
    @has_access_view(AccessView.WEBSITE)
    def page(self) -> Any:
        """The page, which fetches its data."""
        return self.render_template("market_monitor.html", title=MENU_ITEM)

    @expose("/symbol")  # type: ignore[untyped-decorator]
    @has_access_view(AccessView.WEBSITE)
    def symbol(self) -> Any:
        """The page of the symbol that the address names."""
        return self.render_template("market_symbol.html", title=f"Symbol - {MENU_ITEM}")

    @expose("/data")  # type: ignore[untyped-decorator]
    @has_access_view(AccessView.WEBSITE)
    def data(self) -> Any:
        """?parts=pipelines,health: the page's data."""
        return *asked_data(request.args.get("parts")), NEVER_STORED

    @expose("/symbol_data")  # type: ignore[untyped-decorator]
    @has_access_view(AccessView.WEBSITE)
    def symbol_data(self) -> Any:
        """?symbol=AAPL&sessions=20: its bars and marks."""
        answer = asked_symbol(request.args.get("symbol", ""), request.args.get("sessions"))
        return *answer, NEVER_STORED

    @expose("/log")  # type: ignore[untyped-decorator]
    @has_access_view(AccessView.WEBSITE)
    def log(self) -> Any:
        """?dag_id=&run_id=&step=&symbol=: on to the log of the task instance that served the symbol."""
        dag_id, run_id, step, symbol = (
            request.args.get(name, "") for name in ("dag_id", "run_id", "step", "symbol")
        )
        place: dict[str, Any] = {"dag_run_id": run_id} if run_id else {}
        index = map_index_of(dag_id, run_id, step, symbol)
        if index is not None:
            place |= {"task_id": step, "map_index": index, "tab": "logs"}
        return redirect(url_for("Airflow.grid", dag_id=dag_id, **place))

    # Not the blueprint's own static folder: that one is open to everybody.
    @expose("/static/<path:filename>")  # type: ignore[untyped-decorator]
    @has_access_view(AccessView.WEBSITE)
    def static(self, filename: str) -> Any:
        """A file of plugins/static."""
        return send_from_directory(PLUGINS / "static", filename, max_age=kept_seconds(filename))

    @expose("/health")  # type: ignore[untyped-decorator]
    def health(self) -> Any:
        """One word for anybody: up with status 200, stale or down with 503."""
        return *health_answer(), NEVER_STORED | {"Content-Type": "text/plain"}


@blueprint.record_once
def _show_in_menu(state: BlueprintSetupState) -> None:
    """Let every standard role see the menu item; Airflow gives a plugin's items to Admin only."""
    manager = getattr(state.app, "appbuilder").sm  # noqa: B009 - Flask does not know the attribute
    permission = manager.get_permission("menu_access", MENU_ITEM)
    for name in ("Viewer", "User", "Op"):
        role = manager.find_role(name)
        if role is not None and permission is not None and permission not in role.permissions:
            manager.add_permission_to_role(role, permission)
