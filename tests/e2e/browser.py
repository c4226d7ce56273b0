"""A real browser and a real Airflow web server, for the tests that drive the UI.

A test module asks for it by `pytest_plugins = ["tests.e2e.browser"]`. No scheduler runs: a triggered run
stays queued. The market database has a server of its own, which a test may stop and start.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from include.mltrading.configuration.settings import Settings
from include.mltrading.store.connection import connect
from include.mltrading.store.migrations import migrate
from include.standalone import airflow
from include.standalone.postgres import EmbeddedPostgres
from include.standalone.stack import Stack

_VIEWER = ("viewer", "viewer-password")
_USERS = {
    "Viewer": _VIEWER,
    **{role: (role, f"secret-{role}") for role in ("MarketViewer", "MarketOperator", "Public")},
}
_FOREIGN = "somebody-elses"
_FOREIGN_DAG = f"""
from datetime import datetime
from airflow import DAG
from airflow.operators.empty import EmptyOperator
with DAG("{_FOREIGN}", schedule=None, start_date=datetime(2024, 1, 1)):
    EmptyOperator(task_id="nothing")
"""
# What a scheduler and `airflow users create` would do, each in seconds.
_PREPARE = """
from airflow.models import DagBag
from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

for folder in (None, {foreign!r}):
    DagBag(folder, include_examples=False).sync_to_db()
with get_application_builder() as builder:
    builder.sm.sync_roles()
    for role, (name, password) in {users}.items():
        found = builder.sm.find_role(role)
        assert found, role
        assert builder.sm.add_user(name, "A", role, name + "@localhost.invalid", found, password)
"""
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Milliseconds that a busy machine may take for what a test expects.
_PATIENCE = 20_000
# Headless, as root too, and without looking for the maker's own hosts.
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass(frozen=True)
class Site:
    """The web server with the rest of its stack, its users, the server of the market database.

    Users: (name, password); users: one of each role. foreign: the id of a DAG that is not the project's.
    """

    url: str
    stack: Stack
    admin: tuple[str, str]
    viewer: tuple[str, str]
    market: EmbeddedPostgres
    market_url: str
    users: dict[str, tuple[str, str]]
    foreign: str
    cookies: dict[str, list[Any]] = field(default_factory=dict)

    def log_in(self, page: Page, user: tuple[str, str]) -> None:
        """Log in through the login page; again by the same cookies, as Airflow refuses many log-ins.

        The page is then anywhere.
        """
        name, password = user
        if name in self.cookies:
            page.context.add_cookies(self.cookies[name])
            return
        page.goto(f"{self.url}/login/")
        page.fill("#username", name)
        page.fill("#password", password)
        page.click("input[type=submit]")
        page.wait_for_url(f"{self.url}/home*", wait_until="domcontentloaded")
        self.cookies[name] = page.context.cookies()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a browser where there is none; here, and not in the fixture, it is one line for all."""
    if "browser" in getattr(item, "fixturenames", ()) and _executable() is None:
        pytest.skip(
            "NO BROWSER ON THIS MACHINE, THE UI IS NOT TESTED: install one, on Debian or Ubuntu by "
            "`apt-get install chromium`, elsewhere Google Chrome"
        )


def _executable() -> str | None:
    return next(filter(None, map(shutil.which, _BROWSERS)), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium or Chrome of this machine."""
    expect.set_options(timeout=_PATIENCE)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=_executable(), args=_ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, new_state: Callable[[], Path]) -> Iterator[Site]:
    """Airflow's web server with the project's plugins, its DAGs and one of somebody else's, and a migrated,
    empty market database.
    """
    folder = tmp_path_factory.mktemp("site")
    (folder / "dags").mkdir()
    (folder / "dags" / "foreign.py").write_text(_FOREIGN_DAG)
    with _market_server(folder / "market") as market:
        market_url = market.ensure_database("market", connection_limit=25)
        with connect(Settings(database_url=market_url)) as connection:
            migrate(connection)
        with Stack(new_state(), report=_silent) as stack:
            with pytest.MonkeyPatch.context() as environment:
                environment.setenv("MLTRADING_DATABASE_URL", market_url)
                stack.start_database()
            stack.run("-c", _PREPARE.format(foreign=str(folder / "dags"), users=_USERS))
            url = stack.start_webserver()
            admin = (airflow.ADMIN, airflow.admin_password(stack.state))
            yield Site(url, stack, admin, _VIEWER, market, market_url, _USERS, _FOREIGN)


@pytest.fixture(scope="session")
def admin_context(browser: Browser, site: Site) -> Iterator[BrowserContext]:
    """A browser in which the administrator has logged in."""
    context = _context(browser)
    page = context.new_page()
    site.log_in(page, site.admin)
    page.close()
    yield context
    context.close()


@pytest.fixture
def admin_page(admin_context: BrowserContext) -> Iterator[Page]:
    """A new window in which the administrator is logged in."""
    page = admin_context.new_page()
    yield page
    page.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A window of a browser that knows nobody yet."""
    context = _context(browser)
    yield context.new_page()
    context.close()


def _context(browser: Browser) -> BrowserContext:
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    context.set_default_timeout(_PATIENCE)
    return context


def _market_server(folder: Path) -> EmbeddedPostgres:
    folder.mkdir(mode=0o711)
    return EmbeddedPostgres(folder, report=_silent)


def _silent(line: str) -> None:
    pass
