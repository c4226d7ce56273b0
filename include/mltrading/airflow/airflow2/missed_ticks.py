"""Ticks that never ran, as Airflow 2.11's list of missed SLAs tells of them; Airflow 3 has none."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_args

from include.mltrading.airflow.airflow2.runs import active_runs, runs_of_ticks
from include.mltrading.airflow.database_alert import market_database
from include.mltrading.airflow.delivery import deliver
from include.mltrading.airflow.facts import RunFacts
from include.mltrading.airflow.late_runs import find_late
from include.mltrading.airflow.wording import spoken
from include.mltrading.alerts.guard import never_in_the_way
from include.mltrading.configuration.deployments import DagId, Deployments, load_deployments

if TYPE_CHECKING:
    from include.mltrading.alerts.store import Alert

log = logging.getLogger(__name__)


def on_sla_miss(dag: Any, tasks: str, blocking: str, misses: Sequence[Any], instances: Sequence[Any]) -> None:
    """The list has grown. Its dates are ticks; its blocking tasks are not true."""
    with never_in_the_way():
        deployments = load_deployments()
        now = datetime.now(UTC)
        late = find_late(deployments, now, active_runs(get_args(DagId), None))
        ticks = {miss.execution_date for miss in misses}
        runs = runs_of_ticks(dag.dag_id, ticks)
        missed = sorted(ticks - set(runs))
        behind = [
            run
            for run in runs.values()
            if run.state in ("queued", "running") and run.queued_at - run.tick >= deployments.sla(dag.dag_id)
        ]
        with market_database(None, deployments) as connection:
            from include.mltrading.alerts.store import open_alert, open_alerts

            for alert in late:
                open_alert(connection, alert, deployments.alerts)
            # Both have told it already: a late run holds up the next ticks, and one that did not start is
            # late when it does.
            told = [it.kind for it in open_alerts(connection) if it.dag_id == dag.dag_id]
            held_up = "run_late" in told
            behind = [] if "tick_not_started" in told else behind
            if (missed or behind) and not held_up:
                open_alert(connection, _missed(deployments, dag.dag_id, missed, behind), deployments.alerts)
            sent = deliver(connection, deployments)
            log.info("%s: %d missed SLAs, %d mails sent", dag.dag_id, len(misses), sent)


def _missed(deployments: Deployments, dag_id: DagId, missed: list[datetime], behind: list[RunFacts]) -> Alert:
    from include.mltrading.alerts.render import in_new_york
    from include.mltrading.alerts.store import Alert, Details

    name = deployments.deployments[dag_id].display_name
    facts = [("Pipeline", name)]
    if missed:
        span = in_new_york(missed[0])
        span += f" to {in_new_york(missed[-1])}" if len(missed) > 1 else ""
        facts.append(("Did not run", f"{len(missed)} {'tick' if len(missed) == 1 else 'ticks'}: {span}"))
    facts += [("Started late", f"{spoken(run)}, at {in_new_york(run.queued_at)}") for run in behind]
    details = Details(
        "Nothing, if the DAG was paused or Airflow was down on purpose: the next run closes the gap.", facts
    )
    what = f"{len(missed)} ticks did not run" if len(missed) != 1 else "one tick did not run"
    newest = max([*missed, *(run.tick for run in behind)])
    return Alert(
        f"ticks_missed:{dag_id}:{newest.isoformat()}", "ticks_missed",
        f"{name}: {what if missed else 'a tick started late'}", details, dag_id,
    )  # fmt: skip
