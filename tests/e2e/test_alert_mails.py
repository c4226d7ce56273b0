"""Mails about the shipped DAGs, from a real scheduler to a real mail server; none when nothing is wrong."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path

import psycopg
import pytest
import yaml
from mail_catcher import MailCatcher, html_of, text_of
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from running_installation import Installation, past_sessions, tick_of

from include.market_simulator import MarketSimulator
from include.mltrading.alerts.render import in_new_york
from include.mltrading.configuration.settings import PROJECT_ROOT, Settings
from include.mltrading.configuration.symbols import read_symbols_file
from include.mltrading.market.calendar import NEW_YORK
from include.standalone.demo import COLLECTION, FEATURES, LOAD, parsed
from include.standalone.runs import DagRun, connect_metadata, newest_run
from include.standalone.stack import Stack

pytestmark = pytest.mark.e2e

# Two tasks of five symbols; the few are those of the first.
UNIVERSE = read_symbols_file(Settings.symbols_file)[:10]
FAILING = UNIVERSE[1:8:2]
FEW = UNIVERSE[:5]
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


class Alarmed(Installation):
    """An installation whose mails are caught. deployments: its deployments.yaml; dags: its DAG files."""

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
        self.parse_again()

    def parse_again(self) -> None:
        """Have the scheduler read the DAG files now, and its DAGs' next ticks anew."""
        # Only what is newer than the last look counts, and one may be under way.
        soon = time.time() + 2
        for file in self.dags.glob("*.py"):
            os.utime(file, (soon, soon))

    def told(self, dag_id: str, run_id: str, times: int = 1) -> DagRun:
        """The run once it is over and its callback (of its so manieth end) has told what there is to tell."""
        run = self.ended(dag_id, run_id)
        logs = self.stack.state / "airflow" / "logs" / "scheduler"
        line = f"{dag_id} {run_id} is over; "

        def called() -> bool:
            files = {file.resolve() for file in logs.rglob("*.py.log")}
            return sum(file.read_text(errors="replace").count(line) for file in files) >= times

        self.until("the callback", called)
        return run

    def next_tick(self, dag_id: str) -> datetime | None:
        """The DAG's next tick as the scheduler knows it."""
        row = self.metadata.execute(
            "SELECT next_dagrun_create_after FROM dag WHERE dag_id = %s", (dag_id,)
        ).fetchone()
        return row[0] if row else None

    def tick_soon(self, *dag_ids: str, seconds: float) -> datetime:
        """Give paused DAGs a single tick a year, which comes soon, and runs that are late after so long.

        None of them runs before or after it by itself. They are unpaused.
        """
        ahead = 20
        while True:
            tick = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=ahead)
            self.tick_at(tick, *dag_ids, seconds=seconds)
            if datetime.now(UTC) < tick:
                for dag_id in dag_ids:
                    self.pause(dag_id, False)
                return tick
            ahead *= 2  # a busy machine

    def tick_at(self, tick: datetime, *dag_ids: str, seconds: float) -> None:
        """Give DAGs a single tick a year; the scheduler knows of it."""
        # Later runs, such as those that `occupy` makes, would count as the last ones.
        self.metadata.execute(
            "DELETE FROM dag_run WHERE dag_id = ANY (%s) AND data_interval_end >= least(now(), %s)",
            (list(dag_ids), tick),
        )
        for dag_id in dag_ids:
            self.limit(dag_id, seconds, once_a_year(tick))
        for dag_id in dag_ids:
            self.until("the new schedule", lambda dag_id=dag_id: self.next_tick(dag_id) == tick)

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

    @contextmanager
    def nothing_starts(self) -> Iterator[None]:
        """No task starts during the block, but for the gate, whose pool is another."""
        update = "UPDATE slot_pool SET slots = %s WHERE pool = 'default_pool'"
        self.metadata.execute(update, (0,))
        try:
            yield
        finally:
            self.metadata.execute(update, (128,))

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


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory, new_state: Callable[[], Path]) -> Iterator[Alarmed]:
    """Ten symbols, five in a task; a second try comes at once. The DAG files are a copy."""
    folder = tmp_path_factory.mktemp("configuration")
    (folder / "symbols.txt").write_text("\n".join(UNIVERSE) + "\n")
    content = yaml.safe_load(Settings.deployments_file.read_text())
    content["pipeline"] |= {
        "retries": 1, "retry_delay_seconds": 1, "gate_poke_seconds": 2, "minimum_good_share": 0.5
    }  # fmt: skip
    (folder / "deployments.yaml").write_text(yaml.safe_dump(content))
    shutil.copytree(PROJECT_ROOT / "dags", folder / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    with (
        MailCatcher() as catcher,
        MarketSimulator() as simulator,
        Stack(new_state(), report=lambda line: None) as stack,
    ):
        stack.start_database()
        own_code = stack.state / "airflow" / "config" / "airflow_local_settings.py"
        own_code.parent.mkdir(exist_ok=True)
        own_code.write_text(_CLOCK.format(clock=str(folder / "clock")))
        for name, value in {
            "MLTRADING_YAHOO_URL": simulator.url,
            "MLTRADING_YAHOO_REQUESTS_PER_SECOND": "1000",
            "MLTRADING_SYMBOLS_FILE": str(folder / "symbols.txt"),
            "MLTRADING_SYMBOLS_PER_TASK": "5",
            "MLTRADING_DEPLOYMENTS_FILE": str(folder / "deployments.yaml"),
            "AIRFLOW_CONN_SMTP_DEFAULT": catcher.connection,
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
            # A changed schedule counts at once, or the old one makes another run.
            "AIRFLOW__CORE__MIN_SERIALIZED_DAG_FETCH_INTERVAL": "1",
        }.items():
            stack.export(name, value)
        stack.start_scheduler()
        with (
            connect_metadata(stack) as metadata,
            psycopg.connect(stack.environment["MLTRADING_DATABASE_URL"], autocommit=True) as market,
        ):
            made = Alarmed(stack, simulator, metadata, market)
            made.catcher, made.deployments = catcher, folder / "deployments.yaml"
            made.dags = folder / "dags"
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
    now = datetime.now(UTC)
    for dag_id in (LOAD, COLLECTION):
        there.limit(dag_id, seconds=45)
    # The collection's own latest tick may be of a day without a session.
    tick = tick_of(past_sessions(1)[0])
    there.ask_airflow("occupy", COLLECTION, 3, str(tick))
    there.parse_again()
    there.until("the coming ticks", lambda: (there.next_tick(COLLECTION) or now) > now)
    planted = there.plant(COLLECTION, tick)
    # One after the other: the last begins long after both runs are late.
    with there.fault("slow", *FEW, seconds=20.0):
        there.start(LOAD, "slow", period="1mo", symbols=FEW)
        # The collection would go first at the pool, and the load be late before it asks for the slow symbol.
        collecting = "SELECT state FROM task_instance WHERE run_id = 'slow' AND task_id = 'collect_symbol'"
        there.until("the load", lambda: there.metadata.execute(collecting).fetchone() == ("running",))
        there.pause(COLLECTION, False)
        mails = there.mails(2)
        states = {
            dag_id: newest_run(there.metadata, dag_id, run_id=run_id).state  # type: ignore[union-attr]
            for dag_id, run_id in ((LOAD, "slow"), (COLLECTION, planted))
        }
        assert set(states.values()) == {"running"}
        # Airflow's own list begins after a first success.
        assert there.metadata.execute("SELECT count(*) FROM sla_miss").fetchone() == (0,)
    there.told(COLLECTION, planted)
    there.told(LOAD, "slow")
    mails += there.mails(2)
    for dag_id in (LOAD, COLLECTION):
        there.limit(dag_id)
    return mails


@pytest.fixture(scope="module")
def calm(there: Alarmed, first: list[EmailMessage]) -> Alarmed:
    """Everything loaded, the collection unpaused, no tick due soon, all mails taken."""
    assert there.catcher.take() == []
    return there


def collect(there: Alarmed, run_id: str, **conf: object) -> DagRun:
    there.start(COLLECTION, run_id, **conf)
    return there.told(COLLECTION, run_id)


def once_a_year(tick: datetime) -> str:
    """A schedule with this tick, to the second, and none for a year before and after."""
    return f"{tick.astimezone(NEW_YORK):%M %H %d %m * %S}"


def succeeded(there: Alarmed, dag_id: str, tick: datetime) -> None:
    """Give the DAG a run of a past tick that has succeeded."""
    run_id = there.plant(dag_id, tick)
    for change in (
        "UPDATE task_instance SET state = 'success' WHERE dag_id = %s AND run_id = %s",
        "UPDATE dag_run SET state = 'success' WHERE dag_id = %s AND run_id = %s",
    ):
        there.metadata.execute(change, (dag_id, run_id))


def has_succeeded(there: Alarmed, dag_id: str) -> None:
    """Unless it has done so, let the DAG have succeeded."""
    published = (
        "SELECT FROM task_instance WHERE dag_id = %s AND task_id LIKE 'publish_%%' AND state = 'success'"
    )
    if there.metadata.execute(published, (dag_id,)).fetchone() is None:
        succeeded(there, dag_id, tick_of(past_sessions(2)[0], dag_id))


def named(mails: list[EmailMessage], *words: str) -> EmailMessage:
    """The one mail whose subject has these words."""
    [mail] = [mail for mail in mails if all(word in str(mail["Subject"]) for word in words)]
    return mail


def test_a_run_without_a_fault_sends_nothing(there: Alarmed, loaded: DagRun) -> None:
    assert loaded.state == "success"
    assert there.market.execute("SELECT count(*) FROM alerts").fetchone() == (0,)


def test_a_collection_without_a_fault_sends_nothing(calm: Alarmed) -> None:
    told = "SELECT count(*) FROM alerts"
    before = calm.market.execute(told).fetchone()
    assert collect(calm, "nothing_wrong").state == "success"
    assert calm.catcher.mails == []
    assert calm.market.execute(told).fetchone() == before


def test_a_first_run_that_takes_too_long_is_mailed_while_it_runs(first: list[EmailMessage]) -> None:
    mail = named(first[:2], "warning", "Yahoo Finance Data Collection", "late")
    text = text_of(mail)
    assert "collect_symbol" in text
    assert UNIVERSE[3] in text
    assert "Expected: 30 s, late after 45 s" in text
    assert f"/dags/{COLLECTION}/grid?dag_run_id=scheduled" in text
    named(first[2:], "over", "Yahoo Finance Data Collection")


def test_a_manual_run_that_takes_too_long_is_mailed_while_it_runs(first: list[EmailMessage]) -> None:
    mail = named(first[:2], "warning", "Complete Data + Features Pipeline", "late")
    assert "Triggered: " in text_of(mail)
    assert "collect_symbol): running" in text_of(mail)
    assert UNIVERSE[3] in text_of(mail)
    named(first[2:], "over", "Complete Data + Features Pipeline")


def test_symbols_of_several_tasks_that_fail_are_one_mail_and_their_recovery_another(calm: Alarmed) -> None:
    with calm.fault("status", *FAILING, status=404):
        run = collect(calm, "failing")
    assert run.state == "failed"
    [mail] = calm.mails(1)
    assert "Yahoo Finance Data Collection" in mail["Subject"]
    assert "4 of 10 symbols failed" in mail["Subject"]
    text = text_of(mail)
    assert "Symbols served: 6 of 10" in text
    for symbol in FAILING:
        assert f"- {symbol}: collect_symbol: " in text
    assert text.count("&task_id=collect_symbol&map_index=") == 4
    assert "&amp;task_id=collect_symbol&amp;map_index=" in html_of(mail)
    assert collect(calm, "recovering").state == "success"
    [mail] = calm.mails(1)
    assert mail["Subject"].startswith("[MLTrading] over: ")


def test_the_same_symbols_that_fail_again_in_a_run_are_no_mail_and_others_are(calm: Alarmed) -> None:
    one, other = FEW[1], FEW[2]
    with calm.fault("status", one, other, status=404):
        run = collect(calm, "again", symbols=FEW)
        [mail] = calm.mails(1)
        calm.clear(run)
        calm.told(COLLECTION, "again", times=2)
        assert calm.catcher.mails == []
    assert "2 of 5 symbols failed" in mail["Subject"]
    with calm.fault("status", other, status=404):
        calm.clear(run)
        calm.told(COLLECTION, "again", times=3)
    [mail] = calm.mails(1)
    assert "critical" in mail["Subject"]
    assert "1 of 5 symbols failed" in mail["Subject"]
    assert f"- {other}: collect_symbol: " in text_of(mail)
    assert calm.clear(run).state == "success"
    calm.told(COLLECTION, "again", times=4)
    [mail] = calm.mails(1)
    assert mail["Subject"].startswith("[MLTrading] over: ")


def test_input_that_is_refused_is_mailed_once_and_names_the_param(calm: Alarmed) -> None:
    calm.start(LOAD, "forged", start="2026-05-01", end="2020-01-01", symbols=FEW)
    # Airflow may lose the callback of a run that fails before it is known over what to map.
    assert calm.ended(LOAD, "forged").state == "failed"
    [mail] = calm.mails(1)
    assert mail["Subject"] == "[MLTrading] warning: Complete Data + Features Pipeline: input refused"
    assert "Refused: Invalid input for param start" in text_of(mail)
    assert "forged" in text_of(mail)


def test_a_yahoo_that_does_not_answer_is_one_mail_while_the_run_goes_on_and_one_when_it_is_back(
    calm: Alarmed,
) -> None:
    with calm.fault("reset", *FEW):
        calm.start(COLLECTION, "unanswered", symbols=FEW)
        [mail] = calm.mails(1)
        assert newest_run(calm.metadata, COLLECTION, run_id="unanswered").state == "running"  # type: ignore[union-attr]
        assert mail["Subject"] == "[MLTrading] critical: Yahoo cannot be reached"
        assert "unanswered" in text_of(mail)
        assert calm.told(COLLECTION, "unanswered").state == "failed"
    assert collect(calm, "answered", symbols=FEW).state == "success"
    [mail] = calm.mails(1)
    assert mail["Subject"] == "[MLTrading] over: Yahoo cannot be reached"


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


@contextmanager
def password_changed(there: Alarmed) -> Iterator[None]:
    parts = conninfo_to_dict(there.stack.environment["MLTRADING_DATABASE_URL"])
    change = sql.SQL("ALTER ROLE {} PASSWORD {}")
    role = sql.Identifier(str(parts["user"]))
    with psycopg.connect(there.stack.postgres.url("postgres"), autocommit=True) as admin:
        admin.execute(change.format(role, sql.Literal("another")))
        try:
            yield
        finally:
            admin.execute(change.format(role, sql.Literal(str(parts["password"]))))


@pytest.mark.parametrize(
    ("fault", "tries", "subject", "words"),
    [
        (database_down, 2, "the market database cannot be reached", "not currently accepting connections"),
        (password_changed, 1, "the market database refuses the login", "password authentication failed"),
    ],
    ids=["down", "password"],
)
def test_a_database_without_an_answer_is_mailed_once_at_the_first_try_and_its_return_too(
    calm: Alarmed,
    fault: Callable[[Alarmed], AbstractContextManager[None]],
    tries: int,
    subject: str,
    words: str,
) -> None:
    run_id = fault.__name__
    with fault(calm):
        calm.start(COLLECTION, run_id, symbols=FEW)
        [mail] = calm.mails(1)
        assert newest_run(calm.metadata, COLLECTION, run_id=run_id).state == "running"  # type: ignore[union-attr]
        assert mail["Subject"] == f"[MLTrading] critical: {subject}"
        assert words in text_of(mail)
        assert run_id in text_of(mail)
        assert calm.ended(COLLECTION, run_id).state == "failed"
        made = "SELECT max(try_number) FROM task_instance WHERE run_id = %s AND task_id = 'collect_symbol'"
        assert calm.metadata.execute(made, (run_id,)).fetchone() == (tries,)
    assert collect(calm, f"after_{run_id}", symbols=FEW).state == "success"
    [mail] = calm.mails(1)
    assert mail["Subject"] == f"[MLTrading] over: {subject}"
    assert calm.market.execute("SELECT count(*) FROM alerts WHERE resolved_at IS NULL").fetchone() == (0,)


@pytest.fixture
def clock(there: Alarmed) -> Iterator[Path]:
    """The file that says what time it is when freshness is looked at; without one it is now."""
    file = there.dags.with_name("clock")
    yield file
    file.unlink(missing_ok=True)


def test_stale_data_is_told_in_trading_hours_and_not_at_night(calm: Alarmed, clock: Path) -> None:
    """Weekends, holidays and half days are tried without Airflow, in tests/integration/test_alerts.py."""
    (day,) = past_sessions(1)
    behind = UNIVERSE[0]
    with calm.market.transaction():
        for table in ("market_data", "feature_engineered_data"):
            delete = sql.SQL("DELETE FROM {} WHERE symbol = %s AND timestamp > %s")
            calm.market.execute(delete.format(sql.Identifier(table)), (behind, day.open - timedelta(days=7)))

    def told_at(run_id: str, now: datetime) -> list[str]:
        """The subjects of the mails after a run at the end of which it is a certain time."""
        clock.write_text(now.isoformat())
        collect(calm, run_id, symbols=UNIVERSE[1:3])
        subjects = [str(mail["Subject"]) for mail in calm.catcher.take()]
        # That its bars are missing is told at any hour.
        return [subject for subject in subjects if "missing" not in subject]

    assert told_at("night", day.close + timedelta(hours=7)) == []
    assert told_at("noon", day.close - timedelta(hours=1)) == [
        "[MLTrading] critical: bars of 1 symbol are stale"
    ]
    assert told_at("one", day.close - timedelta(minutes=50)) == []
    collect(calm, "fresh", symbols=[behind])
    assert "[MLTrading] over: bars of 1 symbol are stale" in [str(mail["Subject"]) for mail in calm.mails(1)]


def test_ticks_that_never_ran_are_one_line_of_one_mail(calm: Alarmed) -> None:
    calm.pause(COLLECTION)
    for forget in ("DELETE FROM dag_run WHERE dag_id = %s", "DELETE FROM sla_miss WHERE dag_id = %s"):
        calm.metadata.execute(forget, (COLLECTION,))
    last = tick_of(past_sessions(1)[0])
    succeeded(calm, COLLECTION, last)
    now = datetime.now(UTC)
    ends = [datetime.fromisoformat(end) for end in calm.ask_airflow("ticks", COLLECTION, str(last), str(now))]
    *missed, tick = [end for end in ends if end <= now]
    # Its run is not late during the test, however long ago the tick was.
    calm.limit(COLLECTION, seconds=(now - tick).total_seconds() + 600)
    calm.until("the latest tick", lambda: calm.next_tick(COLLECTION) == tick)
    with calm.nothing_starts():
        calm.pause(COLLECTION, False)
        calm.until("Airflow's list", lambda: calm.missed(COLLECTION) >= set(missed))
        [mail] = calm.mails(1)
    assert mail["Subject"] == (
        f"[MLTrading] info: Yahoo Finance Data Collection: {len(missed)} ticks did not run"
    )
    span = f"{in_new_york(missed[0])} to {in_new_york(missed[-1])}"
    assert f"Did not run: {len(missed)} ticks: {span}" in text_of(mail)
    calm.told(COLLECTION, calm.run_of(COLLECTION, tick).run_id)
    assert calm.catcher.take() == []
    calm.limit(COLLECTION)
    calm.ask_airflow("occupy", COLLECTION, 3)


def test_a_tick_without_a_run_is_told_once_and_its_run_is_the_end_of_it(calm: Alarmed) -> None:
    calm.pause(COLLECTION)
    tick = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=10)
    calm.tick_at(tick, COLLECTION, seconds=15)
    file = calm.dags / "yahoo_production_data_collection.py"
    shipped = file.read_text()
    # Airflow passes over a file that has neither word.
    file.write_text("# airflow dag\nan error of syntax")
    calm.parse_again()
    broken = "SELECT has_import_errors FROM dag WHERE dag_id = %s"
    calm.until("the error", lambda: calm.metadata.execute(broken, (COLLECTION,)).fetchone() == (True,))
    calm.pause(COLLECTION, False)
    for run_id in ("sees_it", "sees_it_again"):
        # The tasks of another DAG look around.
        calm.start(LOAD, run_id, period="1mo", symbols=FEW)
        calm.told(LOAD, run_id)
        calm.market.execute("UPDATE alerts SET opened_at = opened_at - interval '2 minutes'")
    [mail] = calm.mails(1)
    at = in_new_york(tick)
    assert mail["Subject"] == f"[MLTrading] critical: Yahoo Finance Data Collection, tick {at}: did not start"
    assert "import errors" in text_of(mail)
    with calm.nothing_starts():
        # The run that comes now is not late, and that it comes so long after its tick is known.
        file.write_text(shipped)
        calm.limit(COLLECTION, 300, once_a_year(tick))
        calm.until("Airflow's own list", lambda: tick in calm.missed(COLLECTION))
    calm.told(COLLECTION, calm.run_of(COLLECTION, tick).run_id)
    [mail] = calm.mails(1)
    assert mail["Subject"].startswith("[MLTrading] over: Yahoo Finance Data Collection, tick ")


def test_a_scheduled_run_that_overruns_is_in_airflows_own_list_and_in_one_mail(
    there: Alarmed, loaded: DagRun
) -> None:
    there.pause(COLLECTION)
    # Airflow looks only at what has succeeded before.
    has_succeeded(there, COLLECTION)
    # Nothing of any run starts, so that only the scheduler can see that this one is late.
    with there.nothing_starts():
        tick = there.tick_soon(COLLECTION, seconds=20)
        [mail] = there.mails(1)
        run = there.run_of(COLLECTION, tick)
        assert run.state == "running"
        assert there.until("Airflow's own list", lambda: tick in there.missed(COLLECTION))
        assert there.catcher.mails == []
    assert "warning: Yahoo Finance Data Collection, tick " in mail["Subject"]
    assert ": late" in mail["Subject"]
    text = text_of(mail)
    assert f"Scheduled: {in_new_york(tick)}" in text
    assert "Expected: 13 s, late after 20 s" in text
    assert f"Run: {run.run_id}" in text
    assert f"/dags/{COLLECTION}/grid?dag_run_id=scheduled" in text
    assert "- check_session: scheduled" in text
    there.told(COLLECTION, run.run_id)
    [mail] = there.mails(1)
    assert mail["Subject"].startswith("[MLTrading] over: Yahoo Finance Data Collection, tick ")
    assert there.catcher.mails == []


def test_a_features_run_that_waits_is_a_line_in_the_mail_of_its_late_collection(
    there: Alarmed, loaded: DagRun
) -> None:
    for dag_id in (COLLECTION, FEATURES):
        there.pause(dag_id)
        # The next tick of a DAG without a run would be the last one, of a year ago.
        has_succeeded(there, dag_id)
    with there.nothing_starts():
        tick = there.tick_soon(COLLECTION, FEATURES, seconds=20)
        [mail] = there.mails(1)
        looked = "SELECT count(*) > 1 FROM task_reschedule WHERE dag_id = %s AND start_date > %s"
        late = (FEATURES, tick + timedelta(seconds=20))
        there.until("the gate to wait", lambda: there.metadata.execute(looked, late).fetchone() == (True,))
        assert there.catcher.mails == []
        # It will be later still, and then it is not the gate that it waits for.
        there.limit(FEATURES, 900, once_a_year(tick))
    assert "Yahoo Finance Data Collection, tick " in mail["Subject"]
    assert f"Waits for it: Production Feature Engineering, tick {in_new_york(tick)}" in text_of(mail)
    for dag_id in (COLLECTION, FEATURES):
        assert there.told(dag_id, there.run_of(dag_id, tick).run_id).state == "success"
    [mail] = there.mails(1)
    assert mail["Subject"].startswith("[MLTrading] over: Yahoo Finance Data Collection, tick ")
    assert there.catcher.mails == []
