"""An installation whose mails are caught, and whose schedules and limits a test changes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from pathlib import Path

import psycopg
import yaml
from mail_catcher import MailCatcher
from running_installation import Installation, past_sessions, tick_of

from include.market_simulator import MarketSimulator
from include.mltrading.configuration.settings import PROJECT_ROOT, Settings
from include.mltrading.market.calendar import NEW_YORK
from include.standalone.airflow import airflow_home
from include.standalone.demo import COLLECTION, parsed
from include.standalone.runs import DagRun, connect_metadata, newest_run
from include.standalone.stack import Stack

# Of the installation with a scheduler.
SYMBOLS = ["AAPL", "MSFT"]
# Airflow runs it in each of its processes: freshness is looked at as if it were the time in a file.
_CLOCK = """
from datetime import datetime
from pathlib import Path

from include.mltrading.alerts import freshness as checks

__all__ = []  # Airflow would take over all names
shipped = checks.freshness
clock = Path({clock!r})


def freshness(connection, deployments, symbols, now):
    told = datetime.fromisoformat(clock.read_text()) if clock.exists() else now
    shipped(connection, deployments, symbols, told)


checks.freshness = freshness
"""


@dataclass(kw_only=True)
class Alarmed(Installation):
    """catcher: its mail server; deployments: its deployments.yaml; dags: its DAG files, a copy."""

    catcher: MailCatcher
    deployments: Path
    dags: Path

    def limit(self, dag_id: str, seconds: float | None = None, cron: str | None = None) -> None:
        """Make the DAG's runs late after so many seconds, and give it another schedule; None: as shipped."""
        content = yaml.safe_load(self.deployments.read_text())
        shipped = yaml.safe_load(Settings.deployments_file.read_text())
        deployment = shipped["deployments"][dag_id]
        schedule = shipped["schedule_types"][deployment["schedule_type"]]
        if seconds is not None:
            deployment["expected_runtime_minutes"] = seconds / 60 / content["alerts"]["sla_factor"]
        if cron is not None:
            schedule["cron"] = cron
        content["deployments"][dag_id] = deployment
        content["schedule_types"][deployment["schedule_type"]] = schedule
        # At once, since a process may be reading it.
        fresh = self.deployments.with_suffix(".new")
        fresh.write_text(yaml.safe_dump(content))
        fresh.replace(self.deployments)
        if self.scheduled:
            # Have the scheduler read the DAG files now: only what is newer than the last look counts.
            soon = time.time() + 2
            for file in self.dags.glob("*.py"):
                os.utime(file, (soon, soon))
        else:
            self.ask_airflow("read", dag_id)

    def run_of(self, dag_id: str, tick: datetime) -> DagRun:
        """The scheduled run of a tick, which is not the newest where ticks are a year apart."""
        row = self.metadata.execute(
            "SELECT run_id FROM dag_run"
            " WHERE dag_id = %s AND data_interval_end = %s AND run_type = 'scheduled'",
            (dag_id, tick),
        ).fetchone()
        assert row is not None
        run = newest_run(self.metadata, dag_id, run_id=row[0])
        assert run is not None
        return run

    def succeeded(self, dag_id: str, tick: datetime | None = None) -> None:
        """Give the DAG a run of a past tick that has succeeded."""
        run_id = self.plant(dag_id, tick or tick_of(past_sessions(2)[0], dag_id))
        for change in (
            "UPDATE task_instance SET state = 'success' WHERE dag_id = %s AND run_id = %s",
            "UPDATE dag_run SET state = 'success' WHERE dag_id = %s AND run_id = %s",
        ):
            self.metadata.execute(change, (dag_id, run_id))

    def missed(self, dag_id: str) -> set[datetime]:
        """The ticks in Airflow's own list of missed SLAs of which people were told."""
        rows = self.metadata.execute(
            "SELECT execution_date FROM sla_miss WHERE dag_id = %s AND notification_sent", (dag_id,)
        )
        return {row[0] for row in rows}

    def mails(self, count: int) -> list[EmailMessage]:
        """The next mails, as soon as there are so many; they are forgotten."""
        self.until(f"{count} mails", lambda: len(self.catcher.mails) >= count)
        return self.catcher.take()


@contextmanager
def alarmed(
    state: Path, folder: Path, *, symbols: list[str], in_a_task: int, scheduled: bool
) -> Iterator[Alarmed]:
    """An installation of these symbols; a second try comes at once, and half of the symbols are enough.

    folder: for its configuration and a copy of the DAG files. in_a_task: how many symbols a task has.
    scheduled: whether a scheduler runs. The databases are empty, the DAGs paused.
    """
    (folder / "symbols.txt").write_text("\n".join(symbols) + "\n")
    content = yaml.safe_load(Settings.deployments_file.read_text())
    content["pipeline"] |= {
        "retries": 1, "retry_delay_seconds": 1, "gate_poke_seconds": 5, "minimum_good_share": 0.5
    }  # fmt: skip
    (folder / "deployments.yaml").write_text(yaml.safe_dump(content))
    shutil.copytree(PROJECT_ROOT / "dags", folder / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    with (
        MailCatcher() as catcher,
        MarketSimulator() as simulator,
        Stack(state, report=lambda line: None) as stack,
    ):
        stack.start_database()
        own_code = airflow_home(stack.state) / "config" / "airflow_local_settings.py"
        own_code.parent.mkdir(exist_ok=True)
        own_code.write_text(_CLOCK.format(clock=str(folder / "clock")))
        for name, value in {
            "MLTRADING_YAHOO_URL": simulator.url,
            "MLTRADING_YAHOO_REQUESTS_PER_SECOND": "1000",
            "MLTRADING_SYMBOLS_FILE": str(folder / "symbols.txt"),
            "MLTRADING_SYMBOLS_PER_TASK": str(in_a_task),
            "MLTRADING_DEPLOYMENTS_FILE": str(folder / "deployments.yaml"),
            "AIRFLOW_CONN_SMTP_DEFAULT": catcher.connection,
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
            # A changed schedule counts at once, or the old one makes another run.
            "AIRFLOW__CORE__MIN_SERIALIZED_DAG_FETCH_INTERVAL": "1",
        }.items():
            stack.export(name, value)
        if scheduled:
            stack.start_scheduler()
        with (
            connect_metadata(stack) as metadata,
            psycopg.connect(stack.environment["MLTRADING_DATABASE_URL"], autocommit=True) as market,
        ):
            made = Alarmed(
                stack, simulator, metadata, market, scheduled,
                catcher=catcher, deployments=folder / "deployments.yaml", dags=folder / "dags",
            )  # fmt: skip
            if scheduled:
                made.until("the scheduler to parse the DAGs", lambda: parsed(metadata))
            else:
                made.ask_airflow("known", COLLECTION)
            yield made
            made.close()


def once_a_year(tick: datetime) -> str:
    """A schedule with this tick, to the second, and none for a year before and after."""
    return f"{tick.astimezone(NEW_YORK):%M %H %d %m * %S}"
