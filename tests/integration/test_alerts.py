"""Alerts with a real database and a real mail server: once, later again, and when it is over."""

from __future__ import annotations

import dataclasses
import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mail_catcher import MailCatcher, html_of, text_of
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from include.market_simulator import MarketSimulator
from include.mltrading.airflow import compat
from include.mltrading.airflow.delivery import deliver
from include.mltrading.airflow.failed_runs import tell_outcome
from include.mltrading.alerts import checks, data
from include.mltrading.alerts.freshness import freshness
from include.mltrading.alerts.store import Alert, Details, Item, open_alert, open_alerts, record_past, resolve
from include.mltrading.cli.task import Task, run_task
from include.mltrading.configuration.alert_kinds import MANNERS, Kind
from include.mltrading.configuration.deployments import (
    COLLECTION,
    FEATURES,
    LOAD,
    Deployments,
    load_deployments,
)
from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import OtherHistoryError
from include.mltrading.market.calendar import NEW_YORK, bars_of, grid, last_sessions, served_bars
from include.mltrading.pipeline.exit_codes import EXIT_DATABASE_REFUSED, EXIT_NO_DATABASE
from include.mltrading.pipeline.quality import AppliedSplit, Quality, undecided_splits
from include.mltrading.pipeline.run import Run
from include.mltrading.pipeline.runner import Outcome
from include.mltrading.pipeline.window import earliest
from include.mltrading.store import ledger, migrations
from include.mltrading.store.connection import Connection, connect

Cli = Callable[..., Any]
pytestmark = pytest.mark.integration

SYMBOLS = ["AAPL", "MSFT"]


@pytest.fixture
def market(settings: Settings) -> Iterator[Connection]:
    with connect(settings) as connection:
        yield connection


@pytest.fixture
def catcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[MailCatcher]:
    with MailCatcher() as served:
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", served.connection)
        yield served


@pytest.fixture
def deployments() -> Deployments:
    return load_deployments(Settings.deployments_file)


def changed(deployments: Deployments, *, quiet: int | None = None, **thresholds: float) -> Deployments:
    """With another quiet period (minutes) for every kind, and other thresholds."""
    alerts = deployments.alerts
    if quiet is not None:
        alerts = alerts.model_copy(update={"quiet_minutes": dict.fromkeys(MANNERS, quiet)})
    limits = alerts.thresholds.model_copy(update=thresholds)
    return deployments.model_copy(update={"alerts": alerts.model_copy(update={"thresholds": limits})})


def alert(kind: Kind = "data_stale", key: str = "", **others: Any) -> Alert:
    details = Details(
        "look at it", [("Run", "run 1")], "Symbols", [Item("AAPL: old", "http://h/log")], ["AAPL"]
    )
    return Alert(key or kind, kind, "bars are stale", details, **others)


def pass_time(market: Connection, minutes: int) -> None:
    """Let everything recorded lie so much further back."""
    market.execute(
        "UPDATE alerts SET opened_at = opened_at - %(t)s, last_seen_at = last_seen_at - %(t)s,"
        " resolved_at = resolved_at - %(t)s, due_at = due_at - %(t)s, sent_at = sent_at - %(t)s,"
        " recovery_due_at = recovery_due_at - %(t)s, claimed_until = claimed_until - %(t)s",
        {"t": timedelta(minutes=minutes)},
    )


def kinds(market: Connection) -> list[str]:
    """Of all alerts ever recorded, in order."""
    return [row[0] for row in market.execute("SELECT kind FROM alerts ORDER BY id")]


# Once -----------------------------------------------------------------------------------------------------


def test_a_condition_is_mailed_once_with_text_and_html_and_again_when_it_is_over(
    market: Connection, catcher: MailCatcher, deployments: Deployments
) -> None:
    for _ in range(3):
        open_alert(market, alert(), deployments.alerts)
        deliver(market, deployments)
    [mail] = catcher.take()
    assert mail["Subject"] == "[MLTrading] critical: bars are stale"
    assert mail["To"] == "ops@localhost"
    assert mail["From"] == "mltrading@localhost"
    for part in (text_of(mail), html_of(mail)):
        assert "look at it" in part
        assert "run 1" in part
        assert "AAPL: old" in part
        assert "http://h/log" in part
    resolve(market, ["data_stale"])
    for _ in range(2):
        deliver(market, deployments)
    [mail] = catcher.take()
    assert mail["Subject"] == "[MLTrading] over: bars are stale"
    assert "Over since" in text_of(mail)


def test_nothing_to_tell_sends_nothing(
    market: Connection, catcher: MailCatcher, deployments: Deployments
) -> None:
    assert resolve(market, ["data_stale"]) == []
    assert deliver(market, deployments) == 0
    assert catcher.mails == []


def test_still_so_after_the_quiet_period_is_mailed_once_more(
    market: Connection, catcher: MailCatcher, deployments: Deployments
) -> None:
    hourly = changed(deployments, quiet=60)
    for minutes in (0, 30, 31, 30):
        pass_time(market, minutes)
        open_alert(market, alert(), hourly.alerts)
        deliver(market, hourly)
    assert catcher.subjects == [
        "[MLTrading] critical: bars are stale",
        "[MLTrading] still critical: bars are stale",
    ]


def test_what_comes_and_goes_is_mailed_once_in_a_quiet_period(
    market: Connection, catcher: MailCatcher, deployments: Deployments
) -> None:
    hourly = changed(deployments, quiet=60)
    for _ in range(3):
        open_alert(market, alert(), hourly.alerts)
        deliver(market, hourly)
        resolve(market, ["data_stale"])
        deliver(market, hourly)
    # The recovery was mailed, so the next opening is quiet, and what was not told needs no recovery.
    assert catcher.subjects == ["[MLTrading] critical: bars are stale", "[MLTrading] over: bars are stale"]
    pass_time(market, 61)
    open_alert(market, alert(), hourly.alerts)
    deliver(market, hourly)
    assert len(catcher.mails) == 3


def test_a_run_or_an_event_is_told_once_however_often_it_is_reported(
    market: Connection, catcher: MailCatcher, deployments: Deployments
) -> None:
    for kind in ("run_failed", "split_applied"):
        for _ in range(2):
            open_alert(market, alert(kind, f"{kind}:run 1"), deployments.alerts)  # type: ignore[arg-type]
            deliver(market, deployments)
            pass_time(market, 10_000)
    assert catcher.subjects == ["[MLTrading] critical: bars are stale", "[MLTrading] info: bars are stale"]
    assert [it.kind for it in open_alerts(market)] == ["run_failed"]


def test_the_same_condition_of_other_runs_shares_a_quiet_period(
    market: Connection, catcher: MailCatcher, deployments: Deployments
) -> None:
    hourly = changed(deployments, quiet=60)
    for run in ("run 1", "run 2"):
        open_alert(market, alert("run_failed", f"run_failed:{run}", condition="AAPL"), hourly.alerts)
        deliver(market, hourly)
    assert len(catcher.mails) == 1
    assert len(kinds(market)) == 2


def test_what_must_be_confirmed_is_mailed_when_it_is_seen_again_later(
    market: Connection, catcher: MailCatcher, deployments: Deployments
) -> None:
    for minutes in (0, 0, 2):
        pass_time(market, minutes)
        assert catcher.mails == []
        open_alert(market, alert("tick_not_started"), deployments.alerts, confirm=timedelta(minutes=1))
        deliver(market, deployments)
    assert len(catcher.mails) == 1


def test_many_who_see_and_send_at_once_make_one_mail(
    settings: Settings, catcher: MailCatcher, deployments: Deployments
) -> None:
    ready = threading.Barrier(6)

    def tell() -> None:
        with connect(settings) as connection:
            ready.wait()
            open_alert(connection, alert(), deployments.alerts)
            deliver(connection, deployments)

    threads = [threading.Thread(target=tell) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(catcher.mails) == 1


def test_a_name_cannot_put_a_header_or_a_tag_into_a_mail(
    market: Connection, catcher: MailCatcher, deployments: Deployments
) -> None:
    bad = "x\r\nBcc: all@example.com\r\n\r\n<script>alert(1)</script>"
    told = dataclasses.replace(alert(), subject=bad, details=Details(f"type `<i>` {bad}", [("Answer", bad)]))
    open_alert(market, told, deployments.alerts)
    deliver(market, deployments)
    [mail] = catcher.take()
    assert mail["Bcc"] is None
    assert "<script>" not in html_of(mail)
    assert "&lt;i&gt;</code>" in html_of(mail)


# The same symbols, run after run ----------------------------------------------------------------------------

ASKED = ["AAPL", "IBM", "MSFT"]
Digest = Callable[..., list[str]]


@pytest.fixture
def outcome(
    market: Connection, catcher: MailCatcher, deployments: Deployments, monkeypatch: pytest.MonkeyPatch
) -> Digest:
    """outcome("AAPL") lets a run end in which AAPL failed, and none of the others; the subjects of the mails.

    task: a task that failed before anything was collected. again: the run before is reported once more.
    """
    runs = [0]
    monkeypatch.setattr("include.mltrading.airflow.params.find_problem", lambda *_: None)
    context = {
        "dag": SimpleNamespace(params={}),
        "dag_run": SimpleNamespace(conf={}, logical_date=datetime.now(UTC)),
    }

    def end(*failing: str, task: str = "", again: bool = False) -> list[str]:
        runs[0] += not again
        run_id = f"run {runs[0]}"
        now = datetime.now(UTC)
        run = compat.RunFacts(COLLECTION, run_id, "scheduled", "failed", now, now)
        red = [compat.InstanceFacts(task, -1, "failed", None, None, "http://h/log")] if task else []
        monkeypatch.setattr(compat, "instances", lambda *_, **__: red)
        for symbol in [] if task else ASKED:
            market.execute(
                "INSERT INTO processing_history (dag_id, run_id, step, symbol, try, correlation_id,"
                " window_end, finished_at, status)"
                " VALUES (%s, %s, 'collect_symbol', %s, 1, 'c', now(), now(), %s) ON CONFLICT DO NOTHING",
                (COLLECTION, run_id, symbol, "error" if symbol in failing else "ok"),
            )
        tell_outcome(market, deployments, run, context, ASKED, failed=bool(failing or task))
        deliver(market, deployments)
        return [str(mail["Subject"]).split(" New York: ")[-1] for mail in catcher.take()]

    return end


def test_the_same_failing_symbols_are_told_once_a_day_and_their_recovery_once(
    market: Connection, outcome: Digest
) -> None:
    assert outcome("AAPL") == ["1 of 3 symbols failed"]
    assert outcome("AAPL", again=True) == []
    for _ in range(7):
        pass_time(market, 60)
        assert outcome("AAPL") == []
    pass_time(market, 24 * 60)
    assert outcome("AAPL") == ["1 of 3 symbols failed"]
    assert outcome("AAPL") == []
    assert outcome() == ["1 of 3 symbols failed"]  # over
    assert [*outcome(), *outcome("AAPL")] == []  # comes and goes within the day
    assert open_alerts(market)[0].details.symbols == ["AAPL"]


def test_other_symbols_that_fail_and_runs_that_fail_as_a_whole_are_told_at_once(
    market: Connection, outcome: Digest
) -> None:
    assert outcome("AAPL") == ["1 of 3 symbols failed"]
    assert outcome("MSFT") == ["1 of 3 symbols failed"]
    assert outcome("AAPL", "MSFT") == ["2 of 3 symbols failed"]
    assert outcome(*ASKED) == ["3 of 3 symbols failed"]
    assert outcome(task="check_session") == ["failed in check_session"]
    assert outcome(task="check_session") == []
    assert len(open_alerts(market)) == 1


def test_what_people_know_of_is_over_also_where_they_did_not_hear_of_the_run_between(
    outcome: Digest, market: Connection
) -> None:
    outcome("AAPL")
    assert outcome("AAPL", "MSFT") == ["2 of 3 symbols failed"]
    assert outcome("AAPL") == []  # told within the day
    assert outcome() == ["2 of 3 symbols failed"]
    assert open_alerts(market) == []


# The mail server is down ------------------------------------------------------------------------------------


def test_what_cannot_be_sent_is_sent_later_and_nothing_is_lost_or_doubled(
    market: Connection, catcher: MailCatcher, deployments: Deployments, caplog: pytest.LogCaptureFixture
) -> None:
    catcher.stop()
    open_alert(market, alert(), deployments.alerts)
    open_alert(market, alert("run_failed", "gone"), deployments.alerts)
    assert deliver(market, deployments) == 0
    assert "smtp_default" in caplog.text
    resolve(market, ["gone"])  # over before anybody could be told
    assert deliver(market, deployments) == 0
    catcher.start()
    assert deliver(market, deployments) == 2
    assert deliver(market, deployments) == 0
    assert catcher.subjects == ["[MLTrading] critical: bars are stale"] * 2
    assert ["Over since" in text_of(mail) for mail in catcher.mails] == [False, True]


def test_an_event_is_not_said_to_be_over(
    market: Connection, catcher: MailCatcher, deployments: Deployments
) -> None:
    open_alert(market, alert("bars_refused", "bars_refused:dag:run"), deployments.alerts)
    assert deliver(market, deployments) == 1
    [mail] = catcher.mails
    assert "Seen since" in text_of(mail)
    assert "Over since" not in text_of(mail)


def test_an_old_event_that_could_never_be_sent_is_not_sent_any_more(
    market: Connection, catcher: MailCatcher, deployments: Deployments
) -> None:
    open_alert(market, alert("split_applied"), deployments.alerts)
    open_alert(market, alert("data_stale"), deployments.alerts)
    pass_time(market, 4 * 24 * 60)
    assert deliver(market, deployments) == 1
    assert catcher.subjects == ["[MLTrading] critical: bars are stale"]


def test_without_a_connection_to_a_mail_server_one_line_says_so(
    market: Connection,
    deployments: Deployments,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from airflow.exceptions import AirflowNotFoundException
    from airflow.providers.smtp.hooks.smtp import SmtpHook

    def missing(*_: object) -> None:
        raise AirflowNotFoundException("smtp_default")

    # Looking it up for real needs Airflow's own database.
    monkeypatch.setattr(SmtpHook, "get_connection", missing)
    open_alert(market, alert(), deployments.alerts)
    assert deliver(market, deployments) == 0
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "correct the connection smtp_default" in caplog.text


def test_a_mail_server_that_hangs_is_not_waited_for_long_nor_again_at_once(
    market: Connection, catcher: MailCatcher, deployments: Deployments, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_connect, waits = socket.create_connection, list[float]()

    def connect(address: Any, timeout: float, source: Any) -> socket.socket:
        waits.append(timeout)
        return really_connect(address, timeout, source)

    open_alert(market, alert(), deployments.alerts)
    open_alert(market, alert("run_failed", "another"), deployments.alerts)
    # It takes connections and never says a word; the connection itself would wait for a minute, six times.
    with socket.create_server(("127.0.0.1", 0)) as silent, monkeypatch.context() as patched:
        port, options = silent.getsockname()[1], "disable_ssl=true&disable_tls=true&timeout=60&retry_limit=5"
        patched.setenv("AIRFLOW_CONN_SMTP_DEFAULT", f"smtp://127.0.0.1:{port}/?{options}")
        patched.setattr("include.mltrading.airflow.mail._MOST_SECONDS", 2)
        patched.setattr(socket, "create_connection", connect)
        for _ in range(3):
            assert deliver(market, deployments) == 0
    assert waits == [2]
    pass_time(market, 5)
    assert deliver(market, deployments) == 2


def test_an_addressee_that_is_refused_keeps_no_mail_from_the_others(
    market: Connection, catcher: MailCatcher, deployments: Deployments, caplog: pytest.LogCaptureFixture
) -> None:
    alerts = deployments.alerts.model_copy(update={"addressees": ["gone@localhost", "here@localhost"]})
    both = deployments.model_copy(update={"alerts": alerts})
    catcher.refused = {"gone@localhost"}
    open_alert(market, alert(), both.alerts)
    assert deliver(market, both) == 1
    assert "gone@localhost" in caplog.text
    assert len(catcher.mails) == 1


def test_a_mail_that_nobody_may_get_stays_due_and_holds_up_no_other(
    market: Connection, catcher: MailCatcher, deployments: Deployments
) -> None:
    catcher.refused = {"ops@localhost"}
    open_alert(market, alert(), deployments.alerts)
    assert deliver(market, deployments) == 0
    catcher.refused = set()
    open_alert(market, alert("run_failed", "another"), deployments.alerts)
    assert deliver(market, deployments) == 1
    pass_time(market, 3)
    assert deliver(market, deployments) == 1


def test_any_text_in_an_error_reaches_the_reader(
    market: Connection, catcher: MailCatcher, deployments: Deployments
) -> None:
    """What PostgreSQL cannot store either: NUL, and half of a surrogate pair."""
    text = "Zürich 東京 💥 \0 \ud800 <b> & 'quoted' \\u0000 " + "long " * 1000
    told = dataclasses.replace(
        alert(),
        subject=f"{text[:40]} failed",
        details=Details("look", [("Answer", text)], "Failed", [Item(text)]),
    )
    assert open_alert(market, told, deployments.alerts)
    assert deliver(market, deployments) == 1
    [mail] = catcher.take()
    assert "Zürich 東京 💥" in str(mail["Subject"])
    for part in (text_of(mail), html_of(mail)):
        assert "Zürich 東京 💥" in part
    assert "<b>" not in html_of(mail).split("look")[1]


def test_any_text_of_an_error_is_a_result(market: Connection) -> None:
    attempt = ledger.Attempt(COLLECTION, "run 1", "collect_symbol", 1, "c", datetime.now(UTC))
    ledger.claim(market, attempt, ["AAPL"])
    ledger.fail(market, attempt, "AAPL", "error", "東京 \0 \ud800", 1.0, 1.0, 1)
    results = ledger.latest(market, COLLECTION, "run 1", "collect_symbol", ["AAPL"])
    assert results["AAPL"].error == "東京 \ufffd ?"


def test_a_thousand_failed_symbols_are_one_mail_of_some_pages(
    market: Connection, catcher: MailCatcher, deployments: Deployments
) -> None:
    items = [Item(f"S{number}: collect_symbol: error: gone", "http://h/log") for number in range(1000)]
    told = dataclasses.replace(alert("run_failed"), details=Details("look", [], "Failed", items))
    open_alert(market, told, deployments.alerts)
    deliver(market, deployments)
    [mail] = catcher.take()
    assert text_of(mail).count("gone") == 25
    assert "- and 975 more" in text_of(mail)
    assert len(mail.as_bytes()) < 30_000


def test_an_outage_of_the_database_is_recorded_afterwards_and_its_end_mailed(
    market: Connection, catcher: MailCatcher, deployments: Deployments
) -> None:
    since = datetime.now(UTC) - timedelta(hours=1)
    record_past(market, alert("database_unreachable"), since, since + timedelta(minutes=1))
    deliver(market, deployments)
    assert catcher.subjects == ["[MLTrading] over: bars are stale"]


# Stale data, in market time ---------------------------------------------------------------------------------


def new_york(day: int, hour: int, minute: int = 0) -> datetime:
    """Of January 2026: 16 is a Friday, 17 and 18 a weekend, 19 a holiday (Martin Luther King)."""
    return datetime(2026, 1, day, hour, minute, tzinfo=NEW_YORK).astimezone(UTC)


def store_bars(market: Connection, until: datetime, *, features: bool = True) -> None:
    """Final bars of January up to an instant, stored long ago, with features or without any."""
    starts = [start for start, end in grid(new_york(12, 9), until).items() if end <= until]
    for symbol in SYMBOLS:
        with market.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO market_data VALUES (%s, %s, 1, 1, 1, 1, 1, true, 'simulated', %s, %s)",
                [(symbol, start, start, start) for start in starts],
            )
        market.execute(
            "INSERT INTO symbol_state (symbol, stale_from, feature_version) VALUES (%s, %s, '1')",
            (symbol, None if features else starts[-1]),
        )


def stale(market: Connection, deployments: Deployments, now: datetime) -> list[tuple[str | None, list[str]]]:
    freshness(market, deployments, SYMBOLS, now)
    return [(it.dag_id, it.details.symbols) for it in open_alerts(market, ["data_stale"])]


def test_bars_are_stale_after_two_hours_of_trading_without_a_bar_that_is_due(
    market: Connection, deployments: Deployments
) -> None:
    store_bars(market, new_york(16, 10, 30))
    # The bar that ended at 11:30 is due; at 13:30 two hours of trading have passed since.
    assert stale(market, deployments, new_york(16, 13, 29)) == []
    assert stale(market, deployments, new_york(16, 13, 31)) == [(COLLECTION, SYMBOLS)]
    [told] = open_alerts(market)
    assert ("Expected by now", "the bar of Fri 2026-01-16 10:30 New York") in told.details.facts
    assert told.details.items[0].text == "AAPL: Fri 2026-01-16 09:30 New York"


@pytest.mark.parametrize(
    "now",
    [
        new_york(16, 23),  # night
        new_york(17, 12),  # Saturday
        new_york(19, 12),  # a holiday
        new_york(20, 9, 15),  # the first tick, before the open
    ],
)
def test_no_data_becomes_stale_while_the_exchange_is_closed(
    market: Connection, deployments: Deployments, now: datetime
) -> None:
    store_bars(market, new_york(16, 10, 30))
    assert stale(market, deployments, now) == []


def test_a_weekend_does_not_make_fridays_last_bars_stale_on_the_next_session(
    market: Connection, deployments: Deployments
) -> None:
    store_bars(market, new_york(16, 16))
    assert stale(market, deployments, new_york(20, 12, 29)) == []
    assert stale(market, deployments, new_york(20, 12, 31)) == [(COLLECTION, SYMBOLS)]


def test_two_hours_of_trading_go_on_after_a_weekend_where_they_ended_before_it(
    market: Connection, deployments: Deployments
) -> None:
    # The bar that is lacking ended at 15:30: half an hour of trading on Friday, then an hour and a half.
    store_bars(market, new_york(16, 14, 30))
    assert stale(market, deployments, new_york(20, 10, 59)) == []
    assert stale(market, deployments, new_york(20, 11, 1)) == [(COLLECTION, SYMBOLS)]


def test_stale_data_is_over_when_the_bars_are_there_also_at_night(
    market: Connection, catcher: MailCatcher, deployments: Deployments
) -> None:
    store_bars(market, new_york(16, 10, 30))
    assert stale(market, deployments, new_york(16, 15))
    deliver(market, deployments)
    market.execute("DELETE FROM market_data")
    market.execute("DELETE FROM symbol_state")
    store_bars(market, new_york(16, 16))
    assert stale(market, deployments, new_york(16, 23)) == []
    deliver(market, deployments)
    assert catcher.subjects == [
        "[MLTrading] critical: bars of 2 symbols are stale",
        "[MLTrading] over: bars of 2 symbols are stale",
    ]


def test_features_are_stale_when_a_stored_bar_has_waited_too_long_for_them(
    market: Connection, deployments: Deployments
) -> None:
    store_bars(market, new_york(16, 13, 30), features=False)
    assert stale(market, deployments, new_york(16, 15, 29)) == []
    assert stale(market, deployments, new_york(16, 15, 31)) == [(FEATURES, SYMBOLS)]


def test_old_bars_that_are_being_loaded_now_make_no_features_stale(
    market: Connection, deployments: Deployments
) -> None:
    store_bars(market, new_york(16, 14, 30), features=False)
    market.execute("UPDATE symbol_state SET stale_from = '2026-01-12'")
    market.execute("UPDATE market_data SET updated_at = %s", (new_york(16, 15),))
    assert stale(market, deployments, new_york(16, 15, 31)) == []


def test_a_load_that_failed_a_day_ago_is_told_and_one_that_was_never_triggered_is_not(
    market: Connection, deployments: Deployments
) -> None:
    now = datetime.now(UTC)
    assert stale(market, deployments, now) == []
    open_alert(market, alert("run_failed", "load", dag_id=LOAD, run_id="r"), deployments.alerts)
    assert stale(market, deployments, now + timedelta(hours=23)) == []
    assert stale(market, deployments, now + timedelta(hours=25)) == [(LOAD, [])]
    resolve(market, ["load"])
    assert stale(market, deployments, now + timedelta(hours=26)) == []


# What a run leaves behind -----------------------------------------------------------------------------------


@pytest.fixture
def here(settings: Settings, tmp_path: Path) -> Settings:
    """The settings with a universe of two symbols."""
    path = tmp_path / "symbols.txt"
    path.write_text("\n".join(SYMBOLS) + "\n")
    return dataclasses.replace(settings, symbols_file=path)


RUN = Run(COLLECTION, "run 1", 1, datetime.now(UTC))
NOTHING = Quality([], {}, [], [])


def record_tries(market: Connection, *statuses: str, symbols: Sequence[str] = SYMBOLS) -> None:
    for symbol, status in zip(symbols, statuses, strict=True):
        market.execute(
            "INSERT INTO processing_history (dag_id, run_id, step, symbol, try, correlation_id, window_end,"
            " finished_at, status) VALUES (%s, 'run 1', 'collect_symbol', %s, 1, 'c', now(), now(), %s)"
            " ON CONFLICT (dag_id, run_id, step, symbol, try) DO UPDATE SET status = excluded.status",
            (COLLECTION, symbol, status),
        )


def store_recent_bars(market: Connection, less: int = 0) -> None:
    """Every final bar of the last days, less the newest of AAPL that are due."""
    now = datetime.now(UTC)
    due = [start for start, end in served_bars(now - timedelta(days=10), now) if end <= now]
    for symbol, starts in (("AAPL", due[: len(due) - less]), ("MSFT", due)):
        with market.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO market_data VALUES (%s, %s, 1, 1, 1, 1, 1, true, 'simulated')",
                [(symbol, start) for start in starts],
            )


def left_behind(
    market: Connection, here: Settings, deployments: Deployments, quality: Quality | None = NOTHING
) -> list[str]:
    """The kinds that are open after a run's last check."""
    checks.after_publish(here, deployments, RUN, "collect_symbol", SYMBOLS, quality)
    return [it.kind for it in open_alerts(market)]


def test_a_good_run_leaves_nothing_to_tell(
    market: Connection, here: Settings, deployments: Deployments
) -> None:
    # This machine's memory and disks are what they are.
    tolerant = changed(deployments, memory_free_share=1e-6, disk_free_share=1e-6)
    store_recent_bars(market)
    record_tries(market, "ok", "ok")
    assert left_behind(market, here, tolerant) == []
    assert kinds(market) == []


@pytest.mark.parametrize(
    ("threshold", "strict", "kind"),
    [
        ("memory_free_share", 1.0, "memory_low"),
        ("disk_free_share", 1.0, "disk_low"),
        ("connections_share", 1e-6, "connections_high"),
        ("timeouts_share", 0.4, "timeouts_high"),
    ],
)
def test_what_passes_a_threshold_is_told_and_is_over_below_it(
    market: Connection, here: Settings, deployments: Deployments, threshold: str, strict: float, kind: str
) -> None:
    tolerant = changed(deployments, memory_free_share=1e-6, disk_free_share=1e-6, timeouts_share=0.5)
    record_tries(market, "ok", "timeout")
    assert left_behind(market, here, changed(tolerant, **{threshold: strict}), None) == [kind]
    assert left_behind(market, here, tolerant, None) == []


def test_a_check_that_cannot_be_made_keeps_no_other_from_it(
    market: Connection, here: Settings, deployments: Deployments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLTRADING_STATE_DIR", "/nowhere")
    monkeypatch.setattr(data, "missing_bars", None)
    strict = changed(deployments, memory_free_share=1.0, connections_share=1e-6)
    record_tries(market, "ok", "timeout")
    assert left_behind(market, here, strict) == ["timeouts_high", "connections_high", "memory_low"]


def test_missing_bars_are_told_until_they_are_there(
    market: Connection, here: Settings, deployments: Deployments
) -> None:
    tolerant = changed(
        deployments, memory_free_share=1e-6, disk_free_share=1e-6, missing_bars_after_minutes=0
    )
    store_recent_bars(market, less=2)
    assert left_behind(market, here, tolerant) == ["bars_missing"]
    [told] = open_alerts(market)
    assert told.details.symbols == ["AAPL"]
    assert "AAPL" in told.details.items[0].text
    market.execute("DELETE FROM market_data")
    store_recent_bars(market)
    assert left_behind(market, here, tolerant) == []


def store_sessions(market: Connection, lacking: dict[str, Callable[[datetime], bool]]) -> None:
    """Every bar of the last weeks that is due, but for those of which a symbol's function says so."""
    now = datetime.now(UTC)
    due = [start for start, end in served_bars(now - timedelta(days=25), now) if end <= now]
    with market.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO market_data VALUES (%s, %s, 1, 1, 1, 1, 1, true, 'simulated')"
            " ON CONFLICT DO NOTHING",
            [(symbol, start) for symbol, lacks in lacking.items() for start in due if not lacks(start)],
        )


def nothing(_: datetime) -> bool:
    return False


@pytest.fixture
def tolerant(deployments: Deployments) -> Deployments:
    """What this machine's memory and disks are like is of no concern."""
    return changed(deployments, memory_free_share=1e-6, disk_free_share=1e-6, missing_bars_after_minutes=0)


def test_a_symbol_without_new_bars_for_five_sessions_is_told_once_and_no_more_as_missing_or_stale(
    market: Connection, here: Settings, catcher: MailCatcher, tolerant: Deployments
) -> None:
    closed = [day for day in last_sessions(7, RUN.window_end) if day.close <= RUN.window_end]
    halt = closed[-4].open
    store_sessions(market, {"AAPL": lambda start: start >= halt, "MSFT": nothing})
    assert left_behind(market, here, tolerant) == ["bars_missing"]  # four sessions are no week
    deliver(market, tolerant)
    assert "missing" in catcher.take()[0]["Subject"]
    market.execute("DELETE FROM market_data WHERE symbol = 'AAPL' AND timestamp >= %s", (closed[-5].open,))
    for _ in range(3):
        assert left_behind(market, here, tolerant) == ["symbol_silent"]
        deliver(market, tolerant)
        pass_time(market, 24 * 60)
    noon = closed[-1].open + timedelta(hours=3)
    freshness(market, tolerant, SYMBOLS, noon)
    assert catcher.subjects == [
        "[MLTrading] warning: AAPL: no new bar for 5 sessions: halted, delisted or renamed?"
    ]
    store_sessions(market, {"AAPL": nothing})
    assert left_behind(market, here, tolerant) == []
    deliver(market, tolerant)
    assert str(catcher.mails[-1]["Subject"]).startswith("[MLTrading] over: AAPL")


def test_where_most_symbols_have_no_new_bars_none_is_called_halted(
    market: Connection, here: Settings, tolerant: Deployments
) -> None:
    long_ago = RUN.window_end - timedelta(days=14)
    store_sessions(market, dict.fromkeys(SYMBOLS, lambda start: start > long_ago))
    assert "symbol_silent" not in left_behind(market, here, tolerant)


def test_hours_that_many_symbols_lack_are_one_alert_about_yahoo_until_they_come(
    market: Connection, here: Settings, catcher: MailCatcher, tolerant: Deployments
) -> None:
    day = last_sessions(2, RUN.window_end)[0]
    hours = [start for start, _ in bars_of(day)]
    store_sessions(
        market, {"AAPL": lambda at: at in hours[1:3], "MSFT": lambda at: at in [*hours[1:3], hours[-1]]}
    )
    for _ in range(2):
        # What one of them lacks alone is its own.
        assert sorted(left_behind(market, here, tolerant)) == ["bars_missing", "bars_withheld"]
        deliver(market, tolerant)
    assert sorted(catcher.subjects) == [
        "[MLTrading] warning: 1 bars of 1 symbol are missing",
        f"[MLTrading] warning: Yahoo lacks 2 hours of {day.day} for 2 symbols",
    ]
    # A later day, on which nobody looks at that session for missing bars any more, does not end it.
    later = dataclasses.replace(RUN, run_id="run 2", window_end=RUN.window_end + timedelta(days=8))
    checks.after_publish(here, tolerant, later, "collect_symbol", SYMBOLS, NOTHING)
    assert f"bars_withheld:{day.day}" in [it.key for it in open_alerts(market)]
    market.execute("DELETE FROM alerts WHERE resolved_at IS NULL AND key NOT LIKE %s", (f"%{day.day}",))
    store_sessions(market, dict.fromkeys(SYMBOLS, nothing))
    assert left_behind(market, here, tolerant) == []
    deliver(market, tolerant)
    assert "[MLTrading] over: Yahoo lacks 2 hours" in " ".join(catcher.subjects)


def test_a_run_for_a_few_symbols_or_of_which_few_were_served_says_nothing_about_yahoo(
    market: Connection, here: Settings, tolerant: Deployments
) -> None:
    universe = [*SYMBOLS, "IBM", "KO"]
    here.symbols_file.write_text("\n".join(universe) + "\n")
    day = last_sessions(2, RUN.window_end)[0]
    hour = bars_of(day)[1][0]
    store_sessions(market, dict.fromkeys(universe, lambda start: start == hour))

    def told(*statuses: str, run: Run = RUN) -> list[str]:
        """The kinds that are open after a run for so many of the universe."""
        asked = universe[: len(statuses)]
        market.execute("DELETE FROM processing_history")
        record_tries(market, *statuses, symbols=asked)
        checks.after_publish(here, tolerant, run, "collect_symbol", asked, NOTHING)
        return sorted(it.kind for it in open_alerts(market))

    assert told("error", "error", "error", "error") == []
    assert told("ok", "ok", run=dataclasses.replace(RUN, backfill=True)) == []
    for statuses in (["ok"], ["ok", "error"], ["ok", "error", "error", "error"]):
        assert told(*statuses) == ["bars_missing"]
    assert told("ok", "ok") == ["bars_withheld"]
    # What is known about Yahoo stays so: neither missing bars, nor over while a few say nothing of it.
    assert told("ok") == ["bars_withheld"]
    store_sessions(market, dict.fromkeys(universe, nothing))
    assert told("ok") == ["bars_withheld"]
    assert told("ok", "ok") == []


def test_hours_that_yahoo_serves_no_more_are_quietly_over(
    market: Connection, here: Settings, tolerant: Deployments, catcher: MailCatcher
) -> None:
    old = alert("bars_withheld", f"bars_withheld:{earliest().date() - timedelta(days=1)}")
    open_alert(market, old, tolerant.alerts)
    deliver(market, tolerant)
    store_recent_bars(market)
    assert left_behind(market, here, tolerant) == []
    deliver(market, tolerant)
    assert len(catcher.subjects) == 1


def test_refused_bars_and_splits_are_events(
    market: Connection, here: Settings, catcher: MailCatcher, deployments: Deployments
) -> None:
    tolerant = changed(deployments, memory_free_share=1e-6, disk_free_share=1e-6)
    store_recent_bars(market)
    found = Quality([], {"AAPL": 2}, [AppliedSplit("MSFT", date(2026, 1, 5), 4.0, 120, "event")], [])
    for _ in range(2):
        assert left_behind(market, here, tolerant, found) == []
        deliver(market, deployments)
    assert catcher.subjects == [
        "[MLTrading] warning: 2 bars of 1 symbol refused",
        "[MLTrading] info: MSFT split 4 for 1, 120 bars restated",
    ]


def test_a_split_that_stays_undecided_is_told_once_until_it_is_decided(
    market: Connection, here: Settings, catcher: MailCatcher, deployments: Deployments
) -> None:
    tolerant = changed(deployments, memory_free_share=1e-6, disk_free_share=1e-6)
    store_recent_bars(market)
    market.execute(
        "INSERT INTO corporate_actions (symbol, ex_date, kind, value, evidence)"
        " SELECT 'MSFT', unnest(%s::date[]), 'split', 1.196, 'event'",
        ([last_sessions(count, RUN.window_end)[0].day for count in (2, 3)],),
    )
    for decided in (False, False, True):
        if decided:
            market.execute("UPDATE corporate_actions SET restated_at = now()")
        found = Quality([], {}, [], undecided_splits(market, ["AAPL", "MSFT"], RUN.window_end))
        assert len(found.undecided) == (0 if decided else 1)  # the one that is three sessions old
        left_behind(market, here, tolerant, found)
        deliver(market, deployments)
    subject = "MSFT: on which side of its split of 1.196 for 1 bars stand cannot be told"
    assert catcher.subjects == [f"[MLTrading] warning: {subject}", f"[MLTrading] over: {subject}"]


# What a task meets ------------------------------------------------------------------------------------------


def collecting(symbols: list[str], run_type: str = "scheduled") -> Task:
    document = {
        "step": "collect_symbol",
        "symbols": symbols,
        "params": {"data_period": "1d"},
        "run": {
            "dag_id": COLLECTION,
            "run_id": "run 1",
            "run_type": run_type,
            "try_number": 1,
            "window_end": datetime.now(UTC).isoformat(),
        },
    }
    return Task.from_json(json.dumps(document))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between two tries of a request."""
    monkeypatch.setattr("include.mltrading.pipeline.vendor._TRANSIENT_TRIES", 1)


@pytest.mark.usefixtures("quick")
def test_yahoo_out_of_reach_is_told_by_the_first_symbols_and_over_when_one_is_served(
    market: Connection, here: Settings, deployments: Deployments
) -> None:
    nobody = dataclasses.replace(here, yahoo_url="http://127.0.0.1:9", yahoo_requests_per_second=1000.0)
    assert run_task(collecting(["AAPL"]), nobody) == 1
    assert kinds(market) == []  # one symbol alone may be the symbol's own trouble
    assert run_task(collecting(["MSFT"]), nobody) == 1
    [told] = open_alerts(market)
    assert (told.kind, told.run_id) == ("yahoo_unreachable", "run 1")
    assert "127.0.0.1:9" in dict(told.details.facts)["Last answer"]
    record_tries(market, "ok", "error")
    tolerant = changed(deployments, memory_free_share=1e-6, disk_free_share=1e-6)
    assert left_behind(market, here, tolerant, None) == []


@pytest.mark.usefixtures("quick")
def test_symbols_that_fail_while_another_is_served_are_not_yahoos_failure(
    market: Connection, here: Settings, simulator: MarketSimulator
) -> None:
    others = ["IBM", "GE", "KO", "PG", "T"]
    record_tries(market, *["error"] * len(others), symbols=others)
    served = dataclasses.replace(here, yahoo_url=simulator.url, yahoo_requests_per_second=1000.0)
    simulator.fault("reset", symbol="MSFT")
    assert run_task(collecting(["AAPL"]), served) == 0
    assert run_task(collecting(["MSFT"]), served) == 1
    assert kinds(market) == []


def test_simulated_data_beside_real_ones_is_told(
    market: Connection, here: Settings, simulator: MarketSimulator
) -> None:
    market.execute("INSERT INTO data_source (source) VALUES ('yahoo')")
    pointed = dataclasses.replace(here, yahoo_url=simulator.url, yahoo_requests_per_second=1000.0)
    assert run_task(collecting(["AAPL"]), pointed) == 2
    assert [it.kind for it in open_alerts(market)] == ["sources_mixed"]


def test_an_edited_migration_is_told(
    market: Connection, here: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "migrations"
    shutil.copytree(migrations.MIGRATIONS_FOLDER, copy)
    (copy / "0001_initial.sql").write_text("-- changed")
    monkeypatch.setattr(migrations.require_current_schema, "__defaults__", (copy,))
    with pytest.raises(migrations.EditedMigrationError):
        run_task(collecting(["AAPL"]), here)
    assert [it.kind for it in open_alerts(market)] == ["migration_edited"]


def test_a_database_out_of_reach_and_a_refused_login_end_a_task_in_their_own_ways(
    database: str, here: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    parts = conninfo_to_dict(database)
    wrong = make_conninfo(**{**parts, "password": "wrong"})  # type: ignore[arg-type]
    nowhere = make_conninfo(**{**parts, "port": 9})  # type: ignore[arg-type]
    task = collecting(["AAPL"])
    assert run_task(task, dataclasses.replace(here, database_url=wrong)) == EXIT_DATABASE_REFUSED
    assert "refuses the connection" in capfd.readouterr().out
    assert run_task(task, dataclasses.replace(here, database_url=nowhere)) == EXIT_NO_DATABASE
    assert "cannot be reached" in capfd.readouterr().out


# The command line -------------------------------------------------------------------------------------------


def test_a_sample_of_each_kind_is_sent_through_a_server_of_ones_own(
    cli: Cli, catcher: MailCatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_SMTP_DEFAULT")
    done = cli("alerts", "test", "--json", MLTRADING_SMTP_URL=f"smtp://127.0.0.1:{catcher.port}")
    assert done.code == 0, done.err
    assert done.document["sent"] == catcher.subjects
    assert len(catcher.subjects) == len(MANNERS) + 1  # and one that is over
    assert all("(sample)" in subject for subject in catcher.subjects)


def test_where_airflow_is_configured_its_own_mail_server_is_used(cli: Cli, catcher: MailCatcher) -> None:
    done = cli("alerts", "test")
    assert done.code == 0, done.err
    assert len(catcher.mails) == len(MANNERS) + 1
    assert catcher.mails[0]["From"] == "mltrading@localhost"


def test_a_mail_server_that_does_not_answer_or_is_none_is_told_in_one_line(
    cli: Cli, catcher: MailCatcher
) -> None:
    catcher.stop()
    for environment, code in (
        ({"MLTRADING_SMTP_URL": f"smtp://127.0.0.1:{catcher.port}"}, 1),
        ({"MLTRADING_SMTP_URL": "mail.example.com"}, 2),
        ({}, 1),  # Airflow's
    ):
        done = cli("alerts", "test", **environment)
        assert (done.code, len(done.err.splitlines())) == (code, 1), done.err


def test_alerts_are_listed(cli: Cli, database: str, market: Connection, deployments: Deployments) -> None:
    open_alert(market, alert(), deployments.alerts)
    done = cli("alerts", "list", MLTRADING_DATABASE_URL=database)
    assert done.code == 0, done.err
    assert "critical  data_stale            open  not mailed  bars are stale" in done.out


def test_another_history_is_told_once_with_its_remedy_and_is_over_when_the_symbol_is_served(
    market: Connection, here: Settings, deployments: Deployments, catcher: MailCatcher
) -> None:
    error = OtherHistoryError("AAPL", "Yahoo serves none of the stored bars")
    outcome = Outcome("AAPL", "error", 0, 1.0, 1.0, 1, str(error), 1, True, type(error).__name__)
    for number in (1, 2):
        run = dataclasses.replace(RUN, run_id=f"run {number}")
        checks.after_batch(here, deployments, run, [outcome], len(SYMBOLS))
        deliver(market, deployments)
    [mail] = catcher.take()
    assert mail["Subject"] == "[MLTrading] critical: AAPL: Yahoo's history is not the stored one"
    assert "reload --symbols AAPL" in text_of(mail)
    record_tries(market, "error", "ok")
    assert "history_differs" in left_behind(market, here, deployments)
    record_tries(market, "ok", "ok")
    assert "history_differs" not in left_behind(market, here, deployments)


@pytest.mark.parametrize("status", ["ok", "error"])
def test_what_was_told_of_a_symbol_is_quietly_over_when_it_leaves_the_symbols_file(
    market: Connection, here: Settings, tolerant: Deployments, catcher: MailCatcher, status: str
) -> None:
    store_recent_bars(market)
    keys = ("history_differs:{}", "symbol_silent:{}", "split_undecided:{}:2026-01-05")
    for key in keys:
        for symbol in ("GONE", "IBM"):
            kind: Any = key.partition(":")[0]
            told = alert(kind, key.format(symbol))
            named = dataclasses.replace(told.details, symbols=[symbol])
            open_alert(market, dataclasses.replace(told, details=named), tolerant.alerts)
    deliver(market, tolerant)
    catcher.take()
    here.symbols_file.write_text("\n".join([*SYMBOLS, "IBM"]) + "\n")
    record_tries(market, status, status)
    left_behind(market, here, tolerant)
    left = {it.key for it in open_alerts(market)}
    assert left >= {key.format("IBM") for key in keys}  # nobody asked for it
    assert not any("GONE" in key for key in left)
    deliver(market, tolerant)
    assert "over" not in " ".join(catcher.subjects)
