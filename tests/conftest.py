"""Fixtures of all tests: a real PostgreSQL, a fresh market database, a market simulator, the command line."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from forks import PRODUCT, Forks
from market_databases import MarketDatabases
from prepared import prepared_states
from psycopg import sql

from include.market_simulator import MarketSimulator
from include.mltrading.configuration.settings import PROJECT_ROOT, Settings
from include.standalone.postgres import _SERVER_SETTINGS, EmbeddedPostgres

# What a developer has exported must not reach the tests.
for _name in [name for name in os.environ if name.startswith(("MLTRADING_", "AIRFLOW", "PG"))]:
    del os.environ[_name]
# Or each process compiles the project anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# For the tests that load DAG files in this process: nobody's own Airflow.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-home-")
atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)


# Of the server that the tests share.
HASTY = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "scram_iterations": "1",  # each of thousands of connections would hash for milliseconds
}


# Files whose tests share a running installation, which each process starts for itself.
_TOGETHER = {
    "tests/e2e/test_airflow3.py": "tests/e2e/test_scheduled_runs.py",
    "tests/e2e/test_scheduled_runs_late.py": "tests/e2e/test_scheduled_runs.py",
    "tests/e2e/test_roles.py": "tests/e2e/test_monitor_page.py",
    "tests/e2e/test_trigger_form.py": "tests/e2e/test_monitor_page.py",
}
# Which files begin first, the longest before the others.
_FIRST = (
    "tests/e2e/test_alert_mails.py",
    "tests/e2e/test_scheduled_runs.py",
    "tests/e2e/",
    "tests/integration/",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With -n, the long files first, so that at the end nobody waits for one of them."""

    def rank(item: pytest.Item) -> int:
        return next(
            (place for place, start in enumerate(_FIRST) if item.nodeid.startswith(start)), len(_FIRST)
        )

    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With -n, a file stays in one process, and with it those that share what it starts."""
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return _TOGETHER.get(file, file)

    return Together(config, log)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL server of the test run's own, whose data need not outlive a crash of the machine."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), report=lambda line: None)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in HASTY.items():
            patch.setitem(_SERVER_SETTINGS, name, value)
        server.start()
        with psycopg.connect(server.url("postgres")) as admin:
            password = sql.Literal(server._password("postgres"))
            admin.execute(sql.SQL("ALTER ROLE postgres PASSWORD {}").format(password))
    yield server
    server.stop()
    server.remove()


@pytest.fixture(scope="session")
def new_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Path]]:
    """new_state(): the state folder of an installation that is prepared and empty, for a Stack."""
    own = tmp_path_factory.mktemp("states")
    common = own.parent.parent if "PYTEST_XDIST_WORKER" in os.environ else own.parent
    with prepared_states(own, common) as make:
        yield make


@pytest.fixture(scope="session")
def migrated_template(postgres: EmbeddedPostgres) -> str:
    """Name of a migrated database, from which each test's own is copied."""
    from include.mltrading.store.connection import connect
    from include.mltrading.store.migrations import migrate

    url = postgres.ensure_database("template_market", connection_limit=25)
    with connect(Settings(database_url=url)) as connection:
        migrate(connection)
    return "template_market"


@pytest.fixture
def empty_database(postgres: EmbeddedPostgres) -> Iterator[str]:
    """URL of a new database without a schema."""
    name = f"market_{uuid.uuid4().hex[:8]}"
    yield postgres.ensure_database(name, connection_limit=25)
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def market_databases(postgres: EmbeddedPostgres, migrated_template: str) -> MarketDatabases:
    """Those that tests use in turn."""
    return MarketDatabases(postgres, migrated_template)


@pytest.fixture
def database(
    postgres: EmbeddedPostgres, migrated_template: str, market_databases: MarketDatabases
) -> Iterator[str]:
    """URL of a migrated market database without rows, owned by the pipeline's role."""
    name = market_databases.take()
    yield f"{postgres.url(migrated_template).rpartition('/')[0]}/{name}"
    market_databases.give_back(name)


@pytest.fixture
def settings(database: str) -> Settings:
    """Settings that point at the test's market database."""
    return Settings(database_url=database)


@pytest.fixture(scope="session")
def loaded() -> None:
    """What a task loads before it forks: a symbol's process would import yfinance for a second, each anew."""
    from include.mltrading.market import calendar, yahoo

    yahoo.preload()
    calendar.preload()


@pytest.fixture
def simulator(loaded: None) -> Iterator[MarketSimulator]:
    """A market simulator of the test's own."""
    with MarketSimulator() as served:
        yield served


@dataclass(frozen=True)
class Finished:
    """What a command line call left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output of --json."""
        return json.loads(self.out)


@pytest.fixture(scope="session")
def commands() -> Iterator[Forks]:
    """What runs the command line; test_command_line_ends.py starts it as a process of its own."""
    forks = Forks(*PRODUCT)
    yield forks
    forks.close()


@pytest.fixture
def cli(commands: Forks) -> Callable[..., Finished]:
    """Call the command line as a user does: cli("collect", "--symbols", "AAPL", MLTRADING_DATABASE_URL=…)."""

    def call(*arguments: str, cwd: Path = PROJECT_ROOT, **environment: str) -> Finished:
        full = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT), **environment}
        return Finished(*commands.call(full, *arguments, cwd=cwd, module="include.mltrading"))

    return call
