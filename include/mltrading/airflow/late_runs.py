"""Runs that take too long, and ticks that did not start."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, get_args

from include.mltrading.airflow import compat
from include.mltrading.airflow.database_alert import is_remembered, market_database
from include.mltrading.airflow.delivery import deliver
from include.mltrading.airflow.facts import InstanceFacts, RunFacts
from include.mltrading.airflow.wording import minutes, spoken
from include.mltrading.alerts.guard import never_in_the_way
from include.mltrading.configuration.deployments import (
    COLLECTION,
    FEATURES,
    LOAD,
    DagId,
    Deployments,
    load_deployments,
)
from include.mltrading.configuration.settings import Settings
from include.mltrading.configuration.symbols import batches, read_symbols_file

if TYPE_CHECKING:
    from include.mltrading.alerts.store import Alert

GATE = "wait_for_bars"
_CONFIRM = timedelta(seconds=90)
_WAITING = ("not started", "scheduled", "queued")

log = logging.getLogger(__name__)


def look_around(known: set[str], own: RunFacts | None) -> None:
    """Tell of runs that are late and of ticks that did not start.

    known: keys told by this process. own: the run that looks; Airflow 3 tells of no others.
    """
    with never_in_the_way():
        deployments, now = load_deployments(), datetime.now(UTC)
        found = find_late(deployments, now, compat.active_runs(get_args(DagId), own))
        found += _not_started(deployments, now)
        if is_remembered() or not {alert.key for alert in found} <= known:
            with market_database(None, deployments) as connection:
                from include.mltrading.alerts.store import open_alert

                for alert in found:
                    confirm = _CONFIRM if alert.kind == "tick_not_started" else timedelta()
                    open_alert(connection, alert, deployments.alerts, confirm=confirm)
                deliver(connection, deployments)
        known |= {alert.key for alert in found if alert.kind == "run_late"}


def due_at(run: RunFacts, deployments: Deployments) -> datetime:
    """The instant from which on the run is late: so long after its tick.

    After it was made, where people made it, or where it was made long after its tick (pause, outage).
    """
    limit = deployments.sla(run.dag_id)  # type: ignore[arg-type]
    on_time = run.run_type == "scheduled" and run.queued_at - run.tick < limit
    return (run.tick if on_time else run.queued_at) + limit


def find_late(deployments: Deployments, now: datetime, runs: list[RunFacts]) -> list[Alert]:
    """Those of the active runs that take too long, whoever started them.

    But for backfills, at which somebody looks.
    """
    active = [run for run in runs if run.run_type != "backfill"]
    late = [run for run in active if now > due_at(run, deployments)]
    if not late:
        return []
    waiting = [
        run
        for run in active
        if run.dag_id == FEATURES
        and any(it.task_id == GATE for it in compat.instances(run.dag_id, run.run_id))
    ]
    collecting = any(run.dag_id == COLLECTION for run in active)
    # While the gate waits, the collection is what is late, and its mail names who waits.
    return [
        _late(run, deployments, now, waiting if run.dag_id == COLLECTION else [])
        for run in late
        if not (run in waiting and collecting)
    ]


def late_key(run: RunFacts) -> str:
    """The key of the alert that the run is late."""
    return f"run_late:{run.dag_id}:{run.run_id}"


def _late(run: RunFacts, deployments: Deployments, now: datetime, waiting: list[RunFacts]) -> Alert:
    from include.mltrading.alerts.render import in_new_york
    from include.mltrading.alerts.store import Alert, Details, Item

    deployment = deployments.deployments[run.dag_id]  # type: ignore[index]
    limit = deployments.sla(run.dag_id)  # type: ignore[arg-type]
    began = due_at(run, deployments) - limit
    symbols = symbols_by_index(run)
    unfinished = compat.instances(run.dag_id, run.run_id)
    # What has not been scheduled waits for the others, unless nothing else is left.
    blocking = [it for it in unfinished if it.state != "not started"] or unfinished
    # A mail shows the first of many: what works, or tries again, before what only waits for its turn.
    blocking.sort(key=lambda it: it.state in _WAITING)
    items = [Item(_said(it, symbols), it.log_url) for it in blocking]
    also = deployments.deployments[FEATURES].display_name
    details = Details(
        "Look at what blocks it. A hung task can be cleared in the grid: it is repeated, nothing is lost.",
        [
            ("Pipeline", deployment.display_name),
            ("Scheduled" if run.run_type == "scheduled" else "Triggered", in_new_york(run.tick)),
            ("Elapsed", minutes(now - began)),
            ("Expected", f"{minutes(limit / deployments.alerts.sla_factor)}, late after {minutes(limit)}"),
            *[("Waits for it", f"{also}, {spoken(other)}") for other in waiting],
            ("Run", run.run_id),
            ("Run in Airflow", run.grid_url),
        ],
        "Blocked by", items,
    )  # fmt: skip
    subject = f"{deployment.display_name}, {spoken(run)}: late, {minutes(now - began)} so far"
    return Alert(late_key(run), "run_late", subject, details, run.dag_id, run.run_id)


def _said(instance: InstanceFacts, symbols: list[list[str]]) -> str:
    from include.mltrading.alerts.render import clock_in_new_york

    name = instance.task_id
    if instance.map_index >= 0:
        known = symbols[instance.map_index] if instance.map_index < len(symbols) else []
        name = f"{', '.join(known) or instance.map_index} ({name})"
    since = ""
    if instance.started_at is not None:
        since = f" since {clock_in_new_york(instance.started_at)}"
    return f"{name}: {instance.state}{since}"


def symbols_by_index(run: RunFacts) -> list[list[str]]:
    """The symbols of each mapped instance, also of those that have not started."""
    if run.dag_id == LOAD:
        return compat.result_of(run.dag_id, run.run_id, "plan_symbols") or []
    settings = Settings.from_environment()
    return batches(read_symbols_file(settings.symbols_file), settings.symbols_per_task)


def _not_started(deployments: Deployments, now: datetime) -> list[Alert]:
    from include.mltrading.alerts.render import in_new_york
    from include.mltrading.alerts.store import Alert, Details

    alerts = []
    for dag_id, tick in compat.overdue_ticks(get_args(DagId)):
        limit = deployments.sla(dag_id)  # type: ignore[arg-type]
        if now <= tick + limit:
            continue
        name = deployments.deployments[dag_id].display_name  # type: ignore[index]
        details = Details(
            "Look for import errors on top of Airflow's DAG list, and at the scheduler's log.",
            [("Pipeline", name), ("Scheduled", in_new_york(tick)), ("Elapsed", minutes(now - tick)),
             ("Expected", f"within {minutes(limit)}")],
        )  # fmt: skip
        subject = f"{name}, tick {in_new_york(tick)}: did not start"
        alerts.append(Alert(f"tick_not_started:{dag_id}", "tick_not_started", subject, details, dag_id))
    return alerts
