"""Mails about the shipped DAGs, from their tasks and callbacks to a real mail server; none when all is well.

No scheduler is waited for, see airflow_side.py. What a real one tells while it works: test_late_runs.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path

import psycopg
import pytest
from airflow_lanes import on_2
from alarmed import Alarmed, alarmed, once_a_year
from mail_catcher import html_of, text_of
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from running_installation import past_sessions, tick_of

from include.mltrading.alerts.render import in_new_york
from include.mltrading.configuration.settings import Settings
from include.mltrading.configuration.symbols import read_symbols_file
from include.standalone.demo import COLLECTION, FEATURES, LOAD
from include.standalone.runs import DagRun, newest_run

pytestmark = [pytest.mark.e2e, on_2]

# Two tasks of two symbols; the few are those of the first, one of each fails.
UNIVERSE = read_symbols_file(Settings.symbols_file)[:4]
FEW = UNIVERSE[:2]
FAILING = UNIVERSE[1::2]


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory, new_state: Callable[[], Path]) -> Iterator[Alarmed]:
    folder = tmp_path_factory.mktemp("configuration")
    with alarmed(new_state(), folder, symbols=UNIVERSE, in_a_task=2, scheduled=False) as made:
        yield made


@pytest.fixture(scope="module")
def loaded(there: Alarmed) -> DagRun:
    """The control: a load in which nothing is wrong."""
    run = there.trigger("load", period="1mo")
    assert run.state == "success"
    assert there.catcher.take() == []
    return run


@pytest.fixture(scope="module")
def first(there: Alarmed, loaded: DagRun) -> list[EmailMessage]:
    """Mails while the collection's first run ever, and a manual load, take too long."""
    collecting = "SELECT count(*) FROM task_instance WHERE task_id = 'collect_symbol' AND state = 'running'"
    with there.held(*FEW):
        there.start(LOAD, "slow", period="1mo", symbols=FEW)
        runs = [(LOAD, "slow", there.begin(LOAD, "slow"))]
        there.until("the load's symbols", lambda: there.metadata.execute(collecting).fetchone() == (1,))
        for dag_id in (LOAD, COLLECTION):
            there.limit(dag_id, seconds=20)
        # It comes to its symbols long before it is late, and tells of both.
        planted = there.plant(COLLECTION, tick_of(past_sessions(1)[0]))
        runs.append((COLLECTION, planted, there.begin(COLLECTION, planted)))
        mails = there.mails(2)
        for dag_id, run_id, _ in runs:
            assert newest_run(there.metadata, dag_id, run_id=run_id).state == "running"  # type: ignore[union-attr]
    for run in runs:
        there.over(*run)
    mails += there.catcher.take()
    for dag_id in (LOAD, COLLECTION):
        there.limit(dag_id)
    return mails


@pytest.fixture(scope="module")
def calm(there: Alarmed, first: list[EmailMessage]) -> Alarmed:
    """Everything loaded, all mails taken."""
    assert there.catcher.take() == []
    return there


def collect(there: Alarmed, run_id: str, **conf: object) -> DagRun:
    there.start(COLLECTION, run_id, **conf)
    return there.ended(COLLECTION, run_id)


def named(mails: list[EmailMessage], *words: str) -> EmailMessage:
    """The one mail whose subject has these words."""
    [mail] = [mail for mail in mails if all(word in str(mail["Subject"]) for word in words)]
    return mail


def test_a_run_without_a_fault_sends_nothing(there: Alarmed, loaded: DagRun) -> None:
    assert loaded.state == "success"
    assert there.market.execute("SELECT count(*) FROM alerts").fetchone() == (0,)


def test_a_first_run_that_takes_too_long_is_mailed_while_it_runs(first: list[EmailMessage]) -> None:
    mail = named(first[:2], "warning", "Yahoo Finance Data Collection", "late")
    text = text_of(mail)
    assert "collect_symbol" in text
    assert FEW[1] in text
    assert "Expected: 13 s, late after 20 s" in text
    assert f"/dags/{COLLECTION}/grid?dag_run_id=scheduled" in text
    named(first[2:], "over", "Yahoo Finance Data Collection")


def test_a_manual_run_that_takes_too_long_is_mailed_while_it_runs(first: list[EmailMessage]) -> None:
    mail = named(first[:2], "warning", "Complete Data + Features Pipeline", "late")
    assert "Triggered: " in text_of(mail)
    assert "collect_symbol): running" in text_of(mail)
    assert FEW[1] in text_of(mail)
    named(first[2:], "over", "Complete Data + Features Pipeline")


def test_symbols_of_several_tasks_that_fail_are_one_mail_in_a_run_and_their_recovery_another(
    calm: Alarmed,
) -> None:
    with calm.fault("cut", *FAILING):
        run = collect(calm, "failing")
        [mail] = calm.catcher.take()
        calm.clear(run)
        assert calm.catcher.mails == []
    assert run.state == "failed"
    assert mail["Subject"].startswith("[MLTrading] critical: Yahoo Finance Data Collection")
    assert "2 of 4 symbols failed" in mail["Subject"]
    text = text_of(mail)
    assert "Symbols served: 2 of 4" in text
    for symbol in FAILING:
        assert f"- {symbol}: collect_symbol: " in text
    assert text.count("&task_id=collect_symbol&map_index=") == 2
    assert "&amp;task_id=collect_symbol&amp;map_index=" in html_of(mail)
    assert calm.clear(run).state == "success"
    [mail] = calm.catcher.take()
    assert mail["Subject"].startswith("[MLTrading] over: ")


def test_a_retry_of_a_batch_repeats_only_the_symbols_that_failed_and_tells_nobody(calm: Alarmed) -> None:
    told = "SELECT count(*) FROM alerts"
    before = calm.market.execute(told).fetchone()
    with calm.fault("cut", FEW[1], count=1):
        run = collect(calm, "retried", symbols=FEW)
    assert run.state == "success"
    assert calm.states(run)["collect_symbol"][", ".join(FEW)] == "success"
    assert [row[:4] for row in calm.ledger(run)] == [
        ("collect_symbol", FEW[0], 1, "ok"),
        ("collect_symbol", FEW[1], 1, "error"),
        ("collect_symbol", FEW[1], 2, "ok"),
    ]
    assert calm.catcher.mails == []
    assert calm.market.execute(told).fetchone() == before


def test_input_that_is_refused_is_mailed_once_and_names_the_param(calm: Alarmed) -> None:
    calm.start(LOAD, "forged", start="2026-05-01", end="2020-01-01", symbols=FEW)
    # Airflow may lose the callback of a run that fails before it is known over what to map.
    assert calm.ended(LOAD, "forged").state == "failed"
    [mail] = calm.catcher.take()
    assert mail["Subject"] == "[MLTrading] warning: Complete Data + Features Pipeline: input refused"
    assert "Refused: Invalid input for param start" in text_of(mail)
    assert "forged" in text_of(mail)


def test_a_yahoo_that_does_not_answer_is_one_mail_while_the_run_goes_on_and_one_when_it_is_back(
    calm: Alarmed,
) -> None:
    # One symbol, whose process waits before it asks again.
    with calm.fault("reset", FEW[0]):
        calm.start(COLLECTION, "unanswered", symbols=FEW[:1])
        begun = calm.begin(COLLECTION, "unanswered")
        [mail] = calm.mails(1)
        assert newest_run(calm.metadata, COLLECTION, run_id="unanswered").state == "running"  # type: ignore[union-attr]
        assert mail["Subject"] == "[MLTrading] critical: Yahoo cannot be reached"
        assert "unanswered" in text_of(mail)
        assert calm.over(COLLECTION, "unanswered", begun).state == "failed"
    assert collect(calm, "answered", symbols=FEW[:1]).state == "success"
    [mail] = calm.catcher.take()
    assert mail["Subject"] == "[MLTrading] over: Yahoo cannot be reached"


def test_a_mail_server_that_is_down_hurts_no_run_and_the_next_run_sends(calm: Alarmed) -> None:
    calm.catcher.stop()
    with calm.fault("cut", FAILING[0]):
        assert collect(calm, "unheard", symbols=FEW).state == "failed"
    assert calm.market.execute("SELECT count(*) FROM alerts WHERE due_at IS NOT NULL").fetchone() == (1,)
    calm.catcher.start()
    assert collect(calm, "heard", symbols=FEW).state == "success"
    [mail] = calm.catcher.take()
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
        begun = calm.begin(COLLECTION, run_id)
        [mail] = calm.mails(1)
        assert newest_run(calm.metadata, COLLECTION, run_id=run_id).state == "running"  # type: ignore[union-attr]
        assert mail["Subject"] == f"[MLTrading] critical: {subject}"
        assert words in text_of(mail)
        assert run_id in text_of(mail)
        assert calm.over(COLLECTION, run_id, begun).state == "failed"
        made = "SELECT max(try_number) FROM task_instance WHERE run_id = %s AND task_id = 'collect_symbol'"
        assert calm.metadata.execute(made, (run_id,)).fetchone() == (tries,)
    assert collect(calm, f"after_{run_id}", symbols=FEW).state == "success"
    [mail] = calm.catcher.take()
    assert mail["Subject"] == f"[MLTrading] over: {subject}"
    assert calm.market.execute("SELECT count(*) FROM alerts WHERE resolved_at IS NULL").fetchone() == (0,)


@pytest.fixture
def clock(there: Alarmed) -> Iterator[Path]:
    """The file that says what time it is when freshness is looked at; without one it is now."""
    file = there.dags.with_name("clock")
    yield file
    file.unlink(missing_ok=True)


def test_stale_data_is_told_at_the_end_of_a_run_and_when_it_is_over(calm: Alarmed, clock: Path) -> None:
    """At which hours: tests/integration/test_alert_checks.py."""
    (day,) = past_sessions(1)
    behind = UNIVERSE[0]
    with calm.market.transaction():
        for table in ("market_data", "feature_engineered_data"):
            delete = sql.SQL("DELETE FROM {} WHERE symbol = %s AND timestamp > %s")
            calm.market.execute(delete.format(sql.Identifier(table)), (behind, day.open - timedelta(days=7)))
    clock.write_text((day.close - timedelta(hours=1)).isoformat())
    collect(calm, "noon", symbols=UNIVERSE[1:2])
    assert "[MLTrading] critical: bars of 1 symbol are stale" in calm.catcher.subjects
    calm.catcher.take()
    collect(calm, "fresh", symbols=[behind])
    assert "[MLTrading] over: bars of 1 symbol are stale" in calm.catcher.subjects


def test_ticks_that_never_ran_are_one_line_of_one_mail(calm: Alarmed) -> None:
    calm.catcher.take()
    calm.metadata.execute("DELETE FROM dag_run WHERE dag_id = %s", (COLLECTION,))
    last = tick_of(past_sessions(1)[0])
    calm.succeeded(COLLECTION, last)
    now = datetime.now(UTC)
    ends = [datetime.fromisoformat(end) for end in calm.ask_airflow("ticks", COLLECTION, str(last), str(now))]
    *missed, tick = [end for end in ends if end <= now]
    # Its run is not late during the test, however long ago the tick was.
    calm.limit(COLLECTION, seconds=(now - tick).total_seconds() + 600)
    planted = calm.plant(COLLECTION, tick)
    calm.ask_airflow("slas", COLLECTION)
    assert calm.missed(COLLECTION) >= set(missed)
    [mail] = calm.catcher.take()
    assert mail["Subject"] == (
        f"[MLTrading] info: Yahoo Finance Data Collection: {len(missed)} ticks did not run"
    )
    span = f"{in_new_york(missed[0])} to {in_new_york(missed[-1])}"
    assert f"Did not run: {len(missed)} ticks: {span}" in text_of(mail)
    calm.ended(COLLECTION, planted)
    assert calm.catcher.take() == []
    calm.limit(COLLECTION)


def test_a_tick_without_a_run_is_told_once_and_its_run_is_the_end_of_it(calm: Alarmed) -> None:
    tick = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=10)
    calm.metadata.execute("DELETE FROM dag_run WHERE dag_id = %s", (COLLECTION,))
    calm.succeeded(COLLECTION)
    calm.limit(COLLECTION, 300, once_a_year(tick))
    # As where the scheduler cannot make the run.
    due = "UPDATE dag SET next_dagrun_create_after = %s, is_paused = %s WHERE dag_id = %s"
    calm.metadata.execute(due, (tick, False, COLLECTION))
    for run_id in ("sees_it", "sees_it_again"):
        # The tasks of another DAG look around.
        calm.start(FEATURES, run_id, symbols=FEW)
        assert calm.ended(FEATURES, run_id).state == "success"
        calm.market.execute("UPDATE alerts SET opened_at = opened_at - interval '2 minutes'")
    [mail] = calm.catcher.take()
    at = in_new_york(tick)
    assert mail["Subject"] == f"[MLTrading] critical: Yahoo Finance Data Collection, tick {at}: did not start"
    assert "import errors" in text_of(mail)
    planted = calm.plant(COLLECTION, tick)
    calm.metadata.execute(due, (tick + timedelta(days=365), True, COLLECTION))
    # The run that comes now is not late, and that it comes so long after its tick is known.
    calm.ask_airflow("slas", COLLECTION)
    assert tick in calm.missed(COLLECTION)
    calm.ended(COLLECTION, planted)
    [mail] = calm.catcher.take()
    assert mail["Subject"].startswith("[MLTrading] over: Yahoo Finance Data Collection, tick ")
    calm.limit(COLLECTION)
