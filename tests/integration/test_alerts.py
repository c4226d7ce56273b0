"""Alerts with a real database and a real mail server: once, later again, and when it is over."""

from __future__ import annotations

import dataclasses
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from mail_catcher import MailCatcher, html_of, text_of

from include.mltrading.airflow.delivery import deliver
from include.mltrading.airflow.facts import InstanceFacts, RunFacts
from include.mltrading.airflow.failed_runs import tell_outcome
from include.mltrading.alerts.store import Details, Item, open_alert, open_alerts, record_past, resolve
from include.mltrading.configuration.alert_kinds import MANNERS
from include.mltrading.configuration.deployments import COLLECTION, Deployments
from include.mltrading.configuration.settings import Settings
from include.mltrading.store import ledger
from include.mltrading.store.connection import Connection, connect
from tests.integration.alerting import (
    alert,
    changed,
    kinds,
    pass_time,
)
from tests.integration.alerting import catcher as catcher
from tests.integration.alerting import deployments as deployments
from tests.integration.alerting import market as market

Cli = Callable[..., Any]
pytestmark = pytest.mark.integration


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
        run = RunFacts(COLLECTION, run_id, "scheduled", "failed", now, now, "http://h/run")
        red = [InstanceFacts(task, -1, "failed", None, "http://h/log")] if task else []
        for symbol in [] if task else ASKED:
            market.execute(
                "INSERT INTO processing_history (dag_id, run_id, step, symbol, try, correlation_id,"
                " window_end, finished_at, status)"
                " VALUES (%s, %s, 'collect_symbol', %s, 1, 'c', now(), now(), %s) ON CONFLICT DO NOTHING",
                (COLLECTION, run_id, symbol, "error" if symbol in failing else "ok"),
            )
        tell_outcome(market, deployments, run, context, ASKED, red if failing or task else None)
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
