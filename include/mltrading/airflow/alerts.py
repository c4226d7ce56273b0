"""Airflow's part of the alerts: what its own tables tell, and sending what is due.

The callbacks run in the DAG processor (in a backfill: in its command), the rest in the tasks' processes.
Nothing here raises into Airflow, and nothing heavy is imported before something has to be told.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from include.mltrading.airflow import compat
from include.mltrading.airflow.database_alert import database_failed, market_database
from include.mltrading.airflow.delivery import deliver
from include.mltrading.airflow.facts import InstanceFacts
from include.mltrading.airflow.failed_runs import tell_outcome
from include.mltrading.airflow.late_runs import late_key
from include.mltrading.alerts.guard import never_in_the_way
from include.mltrading.configuration.deployments import load_deployments
from include.mltrading.configuration.settings import Settings
from include.mltrading.configuration.symbols import read_symbols_file

log = logging.getLogger(__name__)


def on_success(context: Any) -> None:
    """A run is over, and green (or skipped)."""
    _run_is_over(context, None)


def on_failure(context: Any) -> None:
    """A run is over, and red; Airflow may say so more than once."""
    _run_is_over(context, [])


def run_will_fail(context: Any) -> None:
    """A task that is not mapped has failed for good, and with it the run: that is told now.

    Airflow's callback of the run tells it too, where it comes: Airflow 3 may lose it
    (https://github.com/apache/airflow/issues/63374).
    """
    own = context["ti"]
    _run_is_over(context, [InstanceFacts(own.task_id, -1, "failed", None, own.log_url)])


def nothing_was_started(context: Any) -> None:
    """A task finds nothing to count. Where an earlier one has failed, so will the run, and that is told now.

    Airflow 2.11 loses the callback of such a run whenever the last row that its database gives is of a mapped
    task that was never expanded: DAG.fetch_callback asks that one for its context, which has no length.
    """
    with never_in_the_way():
        run = compat.run_facts(context["dag_run"])
        if compat.instances(run.dag_id, run.run_id, state="failed"):
            on_failure(context)


def _run_is_over(context: Any, red: list[InstanceFacts] | None) -> None:
    """red: None of a run that has not failed, else what is red beside what Airflow says."""
    with never_in_the_way():
        run = compat.run_facts(context["dag_run"])
        deployments = load_deployments()
        with market_database(run, deployments) as connection:
            from include.mltrading.alerts.freshness import freshness
            from include.mltrading.alerts.store import resolve

            resolve(connection, [late_key(run), f"tick_not_started:{run.dag_id}"])
            symbols = read_symbols_file(Settings.from_environment().symbols_file)
            asked = list(context["params"].get("symbols") or symbols)
            with never_in_the_way():
                if red is not None:
                    red = red + compat.instances(run.dag_id, run.run_id, state="failed")
                tell_outcome(connection, deployments, run, context, asked, red)
            with never_in_the_way():
                freshness(connection, deployments, symbols, datetime.now(UTC))
            sent = deliver(connection, deployments)
            log.info("%s %s is over; %d mails sent", run.dag_id, run.run_id, sent)


def task_failed(context: Any, *, text: str, database: bool, refused: bool) -> None:
    """A try of a task has failed: tell at once what its process could not tell, and send what it recorded."""
    with never_in_the_way():
        deployments = load_deployments()
        run = compat.run_facts(context["dag_run"])
        if database:
            database_failed(run, text, refused=refused, deployments=deployments)
            return
        with market_database(run, deployments) as connection:
            deliver(connection, deployments)
