"""What is different on Airflow 3: deadlines, callbacks that get lost, the API server's pages, backfills.

Everything runs in the installation of test_scheduled_runs.py: its own scheduler, API server and triggerer.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import pytest
import requests
from airflow_lanes import on_3
from alarmed import SYMBOLS, Alarmed
from mail_catcher import text_of
from running_installation import Shell, bars_until, tick_of

from include.mltrading.market.calendar import NEW_YORK
from include.standalone import airflow
from include.standalone.demo import COLLECTION, FEATURES, LOAD
from include.standalone.runs import DagRun, newest_run

pytestmark = [pytest.mark.e2e, on_3]

# "admin" and a user of each role.
ROLES = {
    "viewer": "MarketViewer",
    "operator": "MarketOperator",
    "nobody": "Public",
}
USERS = """
from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

with get_application_builder() as builder:
    for name, role in {roles}.items():
        builder.sm.add_user(name, name, name, name + "@localhost", builder.sm.find_role(role), "of " + name)
"""
Asking = Callable[..., requests.Response]


@pytest.fixture(scope="module")
def loaded(installation: Alarmed) -> Alarmed:
    """The installation with a month of both symbols, all DAGs unpaused and no tick due; all mails taken."""
    for dag_id in (LOAD, COLLECTION, FEATURES):
        installation.ask_airflow("occupy", dag_id, 3) if dag_id != LOAD else None
        installation.pause(dag_id, False)
    active = "SELECT count(*) = 0 FROM dag_run WHERE state IN ('queued', 'running')"
    installation.until("the end of all", lambda: installation.metadata.execute(active).fetchone() == (True,))
    assert installation.trigger("loaded_for_3", period="1mo").state == "success"
    installation.catcher.take()
    return installation


@pytest.fixture(scope="module")
def ask(installation: Alarmed) -> Asking:
    """ask(user, method, path, **json): the API server's answer to a user of ROLES, "admin" or None."""
    installation.stack.run("-c", USERS.format(roles=ROLES))
    url = installation.stack.web_url

    @cache
    def token(name: str) -> str:
        password = airflow.admin_password(installation.stack.state) if name == "admin" else f"of {name}"
        sent = {"username": name, "password": password}
        answer = requests.post(f"{url}/auth/token", json=sent, timeout=60)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["access_token"])

    def ask(user: str | None, method: str, path: str, **body: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {token(user)}"} if user else {}
        return requests.request(
            method, url + path, json=body or None, headers=headers, timeout=60, allow_redirects=False
        )

    return ask


def collect(there: Alarmed, run_id: str, **conf: object) -> DagRun:
    there.start(COLLECTION, run_id, **conf)
    return there.ended(COLLECTION, run_id)


# Mails --------------------------------------------------------------------------------------------------


def test_a_run_that_passes_its_deadline_is_mailed_while_it_runs_and_once(loaded: Alarmed) -> None:
    loaded.limit(COLLECTION, seconds=5)
    deadline = "SELECT interval FROM deadline_alert ORDER BY created_at DESC LIMIT 1"
    loaded.until("the new limit", lambda: loaded.metadata.execute(deadline).fetchone())
    _until_parsed(loaded)
    with loaded.held(SYMBOLS[1]):
        loaded.start(COLLECTION, "overruns")
        [mail] = loaded.mails(1)
        run = newest_run(loaded.metadata, COLLECTION, run_id="overruns")
        assert run is not None
        assert run.state == "running"
    assert loaded.ended(COLLECTION, "overruns").state == "success"
    assert "warning" in mail["Subject"]
    assert "late" in mail["Subject"]
    text = text_of(mail)
    assert f"{SYMBOLS[1]} (collect_symbol): running" in text
    assert f"{loaded.stack.web_url}/dags/{COLLECTION}/runs/overruns" in text
    [over] = loaded.mails(1)
    assert over["Subject"].startswith("[MLTrading] over: ")
    loaded.limit(COLLECTION)
    _until_parsed(loaded)


def _until_parsed(there: Alarmed) -> None:
    """Wait until the DAG processor has read the collection's file as it is now."""
    parsed = "SELECT last_parsed_time > %s FROM dag WHERE dag_id = %s"
    now = datetime.now(NEW_YORK)
    there.until(
        "the DAG file's new reading",
        lambda: (
            there.metadata.execute(parsed, (now + timedelta(seconds=2), COLLECTION)).fetchone() == (True,)
        ),
    )


def test_a_failed_run_is_one_mail_with_its_symbols_and_its_recovery_another(loaded: Alarmed) -> None:
    with loaded.fault("cut", SYMBOLS[0]):
        assert collect(loaded, "fails").state == "failed"
    [mail] = loaded.mails(1)
    assert "1 of 2 symbols failed" in mail["Subject"]
    text = text_of(mail)
    assert f"- {SYMBOLS[0]}: collect_symbol: " in text
    assert f"/dags/{COLLECTION}/runs/fails/tasks/collect_symbol/mapped/0" in text
    assert collect(loaded, "recovers").state == "success"
    [mail] = loaded.mails(1)
    assert mail["Subject"].startswith("[MLTrading] over: ")


def test_input_that_no_form_has_seen_is_mailed_and_names_the_param(loaded: Alarmed) -> None:
    loaded.start(LOAD, "forged", start="2026-05-01", end="2020-01-01", symbols=SYMBOLS)
    assert loaded.ended(LOAD, "forged").state == "failed"
    [mail] = loaded.mails(1)
    assert mail["Subject"] == "[MLTrading] warning: Complete Data + Features Pipeline: input refused"
    assert "Refused: Invalid input for param start" in text_of(mail)


def test_no_task_warns_of_what_is_deprecated(loaded: Alarmed) -> None:
    logs = airflow.airflow_home(loaded.stack.state) / "logs"
    warned = [
        line
        for file in logs.glob("dag_id=*/**/*.log")
        for line in file.read_text().splitlines()
        if "deprecated" in line or "RemovedIn" in line
    ]
    assert warned == []


# The API server -----------------------------------------------------------------------------------------

PAGES = ["/", "/symbol?symbol=AAPL", "/data", "/symbol_data?symbol=AAPL", "/static/market_common.js"]


def test_every_page_of_the_monitor_is_for_who_may_see_the_website_and_its_health_for_all(
    loaded: Alarmed, ask: Asking
) -> None:
    from include.mltrading.airflow.airflow3.monitor import app

    asked = {page.partition("?")[0].replace("market_common.js", "{filename:path}") for page in PAGES}
    assert {route.path for route in app.routes} == asked | {"/log", "/health"}
    for page in PAGES:
        path = f"/market_monitor{page}"
        assert ask(None, "GET", path).status_code == 401, path
        assert ask("nobody", "GET", path).status_code == 403, path
        for user in ("admin", "viewer", "operator"):
            assert ask(user, "GET", path).status_code == 200, path
    assert ask(None, "GET", "/market_monitor/log").status_code == 401
    assert ask(None, "GET", "/market_monitor/health").text in ("up", "stale")


def test_the_monitor_shows_the_pipelines_and_leads_to_a_symbols_log(loaded: Alarmed, ask: Asking) -> None:
    shown = ask("viewer", "GET", "/market_monitor/data").json()
    assert {pipeline["dag_id"] for pipeline in shown["pipelines"]} == {LOAD, COLLECTION, FEATURES}
    assert not any(pipeline["airflow"]["paused"] for pipeline in shown["pipelines"])
    query = f"dag_id={LOAD}&run_id=loaded_for_3&step=collect_symbol&symbol={SYMBOLS[1]}"
    led = ask("viewer", "GET", f"/market_monitor/log?{query}")
    assert led.status_code == 302
    assert led.headers["Location"] == f"../dags/{LOAD}/runs/loaded_for_3/tasks/collect_symbol/mapped/1"


@pytest.mark.parametrize(
    ("conf", "refusal"),
    [
        ({"start": "2026-05-01", "end": "2020-01-01"}, "Invalid input for param start"),
        ({"symbol": ["AAPL"]}, "Invalid input for param symbol: no such param"),
        ({"symbols": "AAPL"}, "Invalid input for param symbols"),
    ],
)
def test_bad_input_makes_no_run_and_is_one_line_for_who_may_trigger(
    loaded: Alarmed, ask: Asking, conf: dict[str, Any], refusal: str
) -> None:
    runs = "SELECT count(*) FROM dag_run"
    before = loaded.metadata.execute(runs).fetchone()
    path = f"/api/v2/dags/{LOAD}/dagRuns"
    refused = ask("operator", "POST", path, logical_date=None, conf=conf)
    assert refused.status_code == 400
    assert refusal in refused.json()["detail"]
    assert ask("viewer", "POST", path, logical_date=None, conf=conf).status_code == 403
    assert ask(None, "POST", path, logical_date=None, conf=conf).status_code == 401
    assert loaded.metadata.execute(runs).fetchone() == before


def test_an_operator_triggers_and_clears_and_a_viewer_does_not(loaded: Alarmed, ask: Asking) -> None:
    path = f"/api/v2/dags/{COLLECTION}/dagRuns"
    sent = {"logical_date": None, "dag_run_id": "by_api", "conf": {"symbols": SYMBOLS[:1]}}
    assert ask("viewer", "POST", path, **sent).status_code == 403
    assert ask("operator", "POST", path, **sent).status_code == 200
    # While it runs, and with its deadline before it: Airflow's own reference would make this a 500.
    for user, status in (("viewer", 403), ("operator", 200)):
        assert ask(user, "POST", f"{path}/by_api/clear", dry_run=False).status_code == status
    assert loaded.ended(COLLECTION, "by_api").state == "success"
    assert ask("operator", "DELETE", f"{path}/by_api").status_code == 403


# Backfill -----------------------------------------------------------------------------------------------


def test_a_backfill_waits_for_its_runs_and_ends_with_their_true_result(loaded: Alarmed) -> None:
    day = loaded.next_day()
    nine = tick_of(day, hour=9).astimezone(NEW_YORK)
    span = f"{nine.isoformat()} {(nine + timedelta(hours=1)).isoformat()}"
    shell = Shell(loaded.stack.state)
    with loaded.fault("cut", SYMBOLS[0]):
        done = shell(f"python -m include.mltrading.airflow.backfill {COLLECTION} {span}")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.count("not green: backfill__") == 2
    done = shell(f"python -m include.mltrading.airflow.backfill {COLLECTION} {span}")
    assert done.returncode == 0, done.stdout + done.stderr
    ticks = [tick_of(day, hour=hour) for hour in (10, 11)]
    for symbol in SYMBOLS:
        assert loaded.final_bars(symbol, day.open) == bars_until(day, ticks[1])
    assert not [mail["Subject"] for mail in loaded.catcher.take() if "late" in mail["Subject"]]
