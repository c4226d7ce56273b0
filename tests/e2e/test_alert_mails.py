"""Mails about the shipped DAGs, from a real scheduler to a real mail server; none when nothing is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path

import psycopg
import pytest
import yaml
from mail_catcher import MailCatcher, html_of, text_of
from psycopg import sql
from running_installation import Installation

from include.market_simulator import MarketSimulator
from include.mltrading.market.calendar import is_trading_time
from include.mltrading.market.symbols import read_symbols_file
from include.mltrading.settings import Settings
from include.standalone.demo import COLLECTION, LOAD, parsed
from include.standalone.runs import DagRun, connect_metadata, newest_run
from include.standalone.stack import Stack

pytestmark = pytest.mark.e2e

UNIVERSE = read_symbols_file(Settings.symbols_file)[:50]
FAILING = UNIVERSE[1:41:2]
FEW = UNIVERSE[:5]


class Alarmed(Installation):
    """An installation whose mails are caught. deployments: its deployments.yaml."""

    catcher: MailCatcher
    deployments: Path

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

    def start(self, dag_id: str, run_id: str, **conf: object) -> None:
        """Trigger a run."""
        self.ask_airflow("trigger", dag_id, run_id, conf)

    def pause(self, dag_id: str, paused: bool = True) -> None:
        """Pause or unpause a DAG at once; the command would take seconds."""
        update = "UPDATE dag SET is_paused = %s WHERE dag_id = %s"
        # The DAG's own row may come a moment after its serialized form.
        self.until(f"{dag_id} to be known", lambda: self.metadata.execute(update, (paused, dag_id)).rowcount)

    def told(self, dag_id: str, run_id: str) -> DagRun:
        """The run once it is over and its callback has told whatever there is to tell."""
        run = self.ended(dag_id, run_id)
        logs = self.stack.state / "airflow" / "logs" / "scheduler"
        line = f"{dag_id} {run_id} is over; "

        def called() -> bool:
            return any(line in file.read_text(errors="replace") for file in logs.rglob("*.py.log"))

        self.until("the callback", called)
        return run

    def mails(self, count: int) -> list[EmailMessage]:
        """The next mails, as soon as there are so many; they are forgotten."""
        self.until(f"{count} mails", lambda: len(self.catcher.mails) >= count)
        return self.catcher.take()


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alarmed]:
    """Fifty symbols, ten in a task; nothing is tried again."""
    folder = tmp_path_factory.mktemp("configuration")
    (folder / "symbols.txt").write_text("\n".join(UNIVERSE) + "\n")
    content = yaml.safe_load(Settings.deployments_file.read_text())
    content["pipeline"] |= {"retries": 0, "gate_poke_seconds": 2, "minimum_good_share": 0.5}
    (folder / "deployments.yaml").write_text(yaml.safe_dump(content))
    with (
        MailCatcher() as catcher,
        MarketSimulator() as simulator,
        Stack(tmp_path_factory.mktemp("installation"), report=lambda line: None) as stack,
    ):
        stack.start_database()
        for name, value in {
            "MLTRADING_YAHOO_URL": simulator.url,
            "MLTRADING_YAHOO_REQUESTS_PER_SECOND": "1000",
            "MLTRADING_SYMBOLS_FILE": str(folder / "symbols.txt"),
            "MLTRADING_SYMBOLS_PER_TASK": "10",
            "MLTRADING_DEPLOYMENTS_FILE": str(folder / "deployments.yaml"),
            "AIRFLOW_CONN_SMTP_DEFAULT": catcher.connection,
            "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "3",
            # A changed schedule counts at once, or the old one makes another run.
            "AIRFLOW__CORE__MIN_SERIALIZED_DAG_FETCH_INTERVAL": "1",
        }.items():
            stack.export(name, value)
        stack.run("-m", "include.mltrading", "migrate")
        stack.start_scheduler()
        with (
            connect_metadata(stack) as metadata,
            psycopg.connect(stack.environment["MLTRADING_DATABASE_URL"], autocommit=True) as market,
        ):
            made = Alarmed(stack, simulator, metadata, market)
            made.catcher, made.deployments = catcher, folder / "deployments.yaml"
            made.until("the scheduler to parse the DAGs", lambda: parsed(metadata))
            yield made
            made.close()


@pytest.fixture(scope="module")
def loaded(there: Alarmed) -> DagRun:
    """The control: a load in which nothing is wrong."""
    there.pause(LOAD, False)
    there.start(LOAD, "load", period="1mo")
    run = there.told(LOAD, "load")
    assert run.state == "success"
    assert there.catcher.take() == []
    return run


@pytest.fixture(scope="module")
def first(there: Alarmed, loaded: DagRun) -> list[EmailMessage]:
    """Mails while the collection's first run ever, and a manual load, take too long."""
    for dag_id in (LOAD, COLLECTION):
        there.limit(dag_id, seconds=15)
    slow = UNIVERSE[3]
    with there.fault("slow", slow, seconds=24.0):
        there.start(LOAD, "slow", period="1mo", symbols=FEW)
        # The collection would go first at the pool, and the load be late before it asks for the slow symbol.
        collecting = "SELECT state FROM task_instance WHERE run_id = 'slow' AND task_id = 'collect_symbol'"
        there.until("the load", lambda: there.metadata.execute(collecting).fetchone() == ("running",))
        there.pause(COLLECTION, False)
        mails = there.mails(2)
        states = {
            dag_id: newest_run(there.metadata, dag_id, run_id=run_id).state  # type: ignore[union-attr]
            for dag_id, run_id in ((LOAD, "slow"), (COLLECTION, None))
        }
        assert set(states.values()) == {"running"}
    newest = newest_run(there.metadata, COLLECTION)
    assert newest is not None
    there.told(COLLECTION, newest.run_id)
    there.told(LOAD, "slow")
    mails += there.mails(2)
    for dag_id in (LOAD, COLLECTION):
        there.limit(dag_id)
    there.ask_airflow("occupy", COLLECTION, 3)
    return mails


@pytest.fixture(scope="module")
def calm(there: Alarmed, first: list[EmailMessage]) -> Alarmed:
    """Everything loaded, the collection unpaused, no tick due soon, all mails taken."""
    assert there.catcher.take() == []
    return there


def collect(there: Alarmed, run_id: str, **conf: object) -> DagRun:
    there.start(COLLECTION, run_id, **conf)
    return there.told(COLLECTION, run_id)


def named(mails: list[EmailMessage], *words: str) -> EmailMessage:
    """The one mail whose subject has these words."""
    [mail] = [mail for mail in mails if all(word in str(mail["Subject"]) for word in words)]
    return mail


def test_a_run_without_a_fault_sends_nothing(there: Alarmed, loaded: DagRun) -> None:
    assert loaded.state == "success"
    assert there.market.execute("SELECT count(*) FROM alerts").fetchone() == (0,)


def test_a_first_run_that_takes_too_long_is_mailed_while_it_runs(
    there: Alarmed, first: list[EmailMessage]
) -> None:
    mail = named(first[:2], "warning", "Yahoo Finance Data Collection", "late")
    text = text_of(mail)
    run = newest_run(there.metadata, COLLECTION, run_type="scheduled")
    assert "collect_symbol" in text
    assert UNIVERSE[3] in text
    assert "Expected: 10 s, late after 15 s" in text
    assert f"/dags/{COLLECTION}/grid?dag_run_id=scheduled" in text
    assert there.metadata.execute("SELECT count(*) FROM sla_miss").fetchone() == (0,)
    assert run is not None
    named(first[2:], "over", "Yahoo Finance Data Collection")


def test_a_manual_run_that_takes_too_long_is_mailed_while_it_runs(first: list[EmailMessage]) -> None:
    mail = named(first[:2], "warning", "Complete Data + Features Pipeline", "late")
    assert "Triggered: " in text_of(mail)
    assert "collect_symbol): running" in text_of(mail)
    assert UNIVERSE[3] in text_of(mail)
    named(first[2:], "over", "Complete Data + Features Pipeline")


def test_twenty_of_fifty_symbols_that_fail_are_one_mail_and_their_recovery_another(calm: Alarmed) -> None:
    with calm.fault("status", *FAILING, status=404):
        run = collect(calm, "twenty")
    assert run.state == "failed"
    [mail] = calm.mails(1)
    assert "Yahoo Finance Data Collection" in mail["Subject"]
    assert "20 of 50 symbols failed" in mail["Subject"]
    text = text_of(mail)
    assert "Symbols served: 30 of 50" in text
    for symbol in FAILING:
        assert f"- {symbol}: collect_symbol: " in text
    assert text.count("&task_id=collect_symbol&map_index=") == 20
    assert "&amp;task_id=collect_symbol&amp;map_index=" in html_of(mail)
    assert collect(calm, "fifty").state == "success"
    [mail] = calm.mails(1)
    assert mail["Subject"].startswith("[MLTrading] over: ")


def test_a_mail_server_that_is_down_hurts_no_run_and_the_next_run_sends(calm: Alarmed) -> None:
    calm.catcher.stop()
    with calm.fault("status", FAILING[0], status=404):
        assert collect(calm, "unheard", symbols=FEW).state == "failed"
    assert calm.market.execute("SELECT count(*) FROM alerts WHERE due_at IS NOT NULL").fetchone() == (1,)
    calm.catcher.start()
    assert collect(calm, "heard", symbols=FEW).state == "success"
    [mail] = calm.mails(1)
    assert mail["Subject"].startswith("[MLTrading] critical: ")
    assert f"- {FAILING[0]}: collect_symbol: " in text_of(mail)
    assert "Over since" in text_of(mail)


@contextmanager
def database_down(there: Alarmed) -> Iterator[None]:
    name = str(there.stack.market_database)
    switch = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    with psycopg.connect(there.stack.postgres.url("postgres"), autocommit=True) as admin:
        admin.execute(switch.format(sql.Identifier(name), sql.SQL("false")))
        try:
            yield
        finally:
            admin.execute(switch.format(sql.Identifier(name), sql.SQL("true")))


def test_a_database_that_is_down_is_mailed_once_at_the_first_try_and_its_return_too(calm: Alarmed) -> None:
    with database_down(calm):
        calm.start(COLLECTION, "dark", symbols=FEW)
        [mail] = calm.mails(1)
        assert newest_run(calm.metadata, COLLECTION, run_id="dark").state == "running"  # type: ignore[union-attr]
        assert mail["Subject"] == "[MLTrading] critical: the market database cannot be reached"
        assert "not currently accepting connections" in text_of(mail)
        assert "dark" in text_of(mail)
        assert calm.ended(COLLECTION, "dark").state == "failed"
    assert collect(calm, "light", symbols=FEW).state == "success"
    [mail] = calm.mails(1)
    assert mail["Subject"] == "[MLTrading] over: the market database cannot be reached"
    assert calm.market.execute("SELECT count(*) FROM alerts WHERE resolved_at IS NULL").fetchone() == (0,)


def test_stale_data_is_told_in_trading_hours_only(calm: Alarmed) -> None:
    """The other side of the clock is tried without Airflow, in tests/integration/test_alerts.py."""
    week_ago = datetime.now(UTC) - timedelta(days=7)
    calm.market.execute(
        "DELETE FROM market_data WHERE symbol = %s AND timestamp > %s", (UNIVERSE[0], week_ago)
    )
    trading = is_trading_time(datetime.now(UTC), timedelta(hours=1))
    with calm.fault("status", UNIVERSE[0], status=404):
        collect(calm, "stale", symbols=UNIVERSE[1:3])
    told = [str(mail["Subject"]) for mail in calm.catcher.take()]
    # That its bars are missing is told at any hour.
    expected = ["[MLTrading] critical: bars of 1 symbol are stale"] if trading else []
    assert [subject for subject in told if "missing" not in subject] == expected
