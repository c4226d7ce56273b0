"""MarketViewer and MarketOperator at the real web server: who sees and who triggers which DAG."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import requests
from airflow_lanes import on_2

if TYPE_CHECKING:
    # Not at run time: pytest loads the module as a plugin.
    from tests.e2e.browser import Site

pytest_plugins = ["tests.e2e.browser"]
pytestmark = [pytest.mark.e2e, on_2]

DAGS = {
    "complete-data-and-features-ondemand",
    "feature-engineering-production-subprocess",
    "yahoo-production-data-collection",
}
LogIn = Callable[[str], requests.Session]


@pytest.fixture(scope="module")
def log_in(site: Site) -> LogIn:
    """A session of a user, who logs in once, as Airflow refuses many log-ins."""

    @cache
    def log_in(name: str) -> requests.Session:
        session = requests.Session()
        form = session.get(f"{site.url}/login/", timeout=60).text
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', form)
        assert token
        name, password = site.admin if name == "admin" else site.users[name]
        answer = session.post(
            f"{site.url}/login/",
            data={"username": name, "password": password, "csrf_token": token[1]},
            timeout=60,
        )
        assert "/login" not in answer.url or name == "Public", name
        return session

    return log_in


def ask(site: Site, session: requests.Session, method: str, path: str, **body: Any) -> requests.Response:
    return session.request(method, site.url + path, json=body or None, timeout=60, allow_redirects=False)


def trigger(site: Site, session: requests.Session, dag_id: str) -> int:
    return ask(site, session, "POST", f"/api/v1/dags/{dag_id}/dagRuns", conf={}).status_code


def seen(site: Site, session: requests.Session) -> set[str]:
    return {dag["dag_id"] for dag in ask(site, session, "GET", "/api/v1/dags").json()["dags"]}


def test_an_administrator_sees_the_foreign_dag_too(site: Site, log_in: LogIn) -> None:
    assert seen(site, log_in("admin")) == {*DAGS, site.foreign}


def test_a_viewer_reads_our_dags_and_the_monitor_and_triggers_none(site: Site, log_in: LogIn) -> None:
    viewer = log_in("MarketViewer")
    assert seen(site, viewer) == DAGS
    assert ask(site, viewer, "GET", "/market_monitor/").status_code == 200
    assert {trigger(site, viewer, dag_id) for dag_id in (*DAGS, site.foreign)} == {403}


def test_an_operator_triggers_and_clears_our_dags_only(site: Site, log_in: LogIn) -> None:
    operator = log_in("MarketOperator")
    assert seen(site, operator) == DAGS
    assert ask(site, operator, "GET", "/market_monitor/").status_code == 200
    assert {dag_id: trigger(site, operator, dag_id) for dag_id in DAGS} == dict.fromkeys(DAGS, 200)
    assert trigger(site, operator, site.foreign) == 403
    for who, expected in ((operator, 200), (log_in("MarketViewer"), 403)):
        cleared = ask(
            site,
            who,
            "POST",
            "/api/v1/dags/yahoo-production-data-collection/clearTaskInstances",
            dry_run=True,
        )
        assert cleared.status_code == expected
    admin = log_in("admin")
    for dag_id in DAGS:
        runs = f"/api/v1/dags/{dag_id}/dagRuns"
        for run in ask(site, admin, "GET", runs).json()["dag_runs"]:
            assert ask(site, admin, "DELETE", f"{runs}/{run['dag_run_id']}").status_code == 204


def test_public_sees_nothing(site: Site, log_in: LogIn) -> None:
    for session in (requests.Session(), log_in("Public")):
        assert ask(site, session, "GET", "/api/v1/dags").status_code in (401, 403)
        assert ask(site, session, "GET", "/market_monitor/data").status_code in (302, 401, 403)
