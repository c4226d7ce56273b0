"""MarketViewer and MarketOperator at the real web server: who sees and who triggers which DAG."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from include.standalone import airflow
from include.standalone.stack import Stack

pytestmark = pytest.mark.e2e

DAGS = {
    "complete-data-and-features-ondemand",
    "feature-engineering-production-subprocess",
    "yahoo-production-data-collection",
}
FOREIGN = "somebody-elses"
FOREIGN_DAG = f"""
from datetime import datetime
from airflow import DAG
from airflow.operators.empty import EmptyOperator
with DAG("{FOREIGN}", schedule=None, start_date=datetime(2024, 1, 1)):
    EmptyOperator(task_id="nothing")
"""
PREPARE = """
from airflow.models import DagBag
from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

for folder in (None, {foreign!r}):
    DagBag(folder, include_examples=False).sync_to_db()
with get_application_builder() as builder:
    for role in ("MarketViewer", "MarketOperator", "Public"):
        found = builder.sm.find_role(role)
        assert found, role
        assert builder.sm.add_user(role, "A", role, role + "@localhost.invalid", found, "secret-" + role)
"""
LogIn = Callable[[str], requests.Session]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, new_state: Callable[[], Path]) -> Iterator[Stack]:
    """A web server, no scheduler: a triggered run stays queued."""
    with Stack(new_state(), report=lambda line: None) as stack:
        stack.start_database()
        foreign = tmp_path_factory.mktemp("dags")
        (foreign / "foreign.py").write_text(FOREIGN_DAG)
        stack.run("-c", PREPARE.format(foreign=str(foreign)))
        stack.start_webserver()
        yield stack


@pytest.fixture
def log_in(stack: Stack) -> LogIn:
    def log_in(name: str) -> requests.Session:
        base = stack.environment["AIRFLOW__WEBSERVER__BASE_URL"]
        session = requests.Session()
        form = session.get(f"{base}/login/", timeout=60).text
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', form)
        assert token
        password = airflow.admin_password(stack.state) if name == "admin" else f"secret-{name}"
        answer = session.post(
            f"{base}/login/",
            data={"username": name, "password": password, "csrf_token": token[1]},
            timeout=60,
        )
        assert "/login" not in answer.url or name == "Public", name
        return session

    return log_in


def ask(stack: Stack, session: requests.Session, method: str, path: str, **body: Any) -> requests.Response:
    url = stack.environment["AIRFLOW__WEBSERVER__BASE_URL"] + path
    return session.request(method, url, json=body or None, timeout=60, allow_redirects=False)


def trigger(stack: Stack, session: requests.Session, dag_id: str) -> int:
    return ask(stack, session, "POST", f"/api/v1/dags/{dag_id}/dagRuns", conf={}).status_code


def seen(stack: Stack, session: requests.Session) -> set[str]:
    return {dag["dag_id"] for dag in ask(stack, session, "GET", "/api/v1/dags").json()["dags"]}


def test_an_administrator_sees_the_foreign_dag_too(stack: Stack, log_in: LogIn) -> None:
    assert seen(stack, log_in("admin")) == {*DAGS, FOREIGN}


def test_a_viewer_reads_our_dags_and_the_monitor_and_triggers_none(stack: Stack, log_in: LogIn) -> None:
    viewer = log_in("MarketViewer")
    assert seen(stack, viewer) == DAGS
    assert ask(stack, viewer, "GET", "/market_monitor/").status_code == 200
    assert {trigger(stack, viewer, dag_id) for dag_id in (*DAGS, FOREIGN)} == {403}


def test_an_operator_triggers_and_clears_our_dags_only(stack: Stack, log_in: LogIn) -> None:
    operator = log_in("MarketOperator")
    assert seen(stack, operator) == DAGS
    assert ask(stack, operator, "GET", "/market_monitor/").status_code == 200
    assert {dag_id: trigger(stack, operator, dag_id) for dag_id in DAGS} == dict.fromkeys(DAGS, 200)
    assert trigger(stack, operator, FOREIGN) == 403
    for who, expected in ((operator, 200), (log_in("MarketViewer"), 403)):
        cleared = ask(
            stack,
            who,
            "POST",
            "/api/v1/dags/yahoo-production-data-collection/clearTaskInstances",
            dry_run=True,
        )
        assert cleared.status_code == expected


def test_public_sees_nothing(stack: Stack, log_in: LogIn) -> None:
    for session in (requests.Session(), log_in("Public")):
        assert ask(stack, session, "GET", "/api/v1/dags").status_code in (401, 403)
        assert ask(stack, session, "GET", "/market_monitor/data").status_code in (302, 401, 403)
