"""What reads and writes Airflow's metadata database: settings, roles, the house-keeping."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope
from cryptography.fernet import Fernet
from forks import Forks

from include.mltrading.configuration.airflow_settings import DEFAULT_FILE
from include.standalone.airflow import MAJOR
from include.standalone.postgres import EmbeddedPostgres

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
SECRET = "only-for-this-test-6f1c"
COLOUR = "from airflow.models import Variable; print(Variable.get('colour'))"


OF_AIRFLOW_3 = {
    "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
    # As its own commands: connections come from the database.
    "_AIRFLOW_PROCESS_CONTEXT": "server",
}
APPLY = "include.mltrading.airflow.apply_settings"


@dataclass
class Airflow:
    """A migrated metadata database, the environment that names it, a process in which Airflow is loaded."""

    url: str
    environment: dict[str, str]
    forks: Forks

    def ask(
        self, environment: dict[str, str], *arguments: str, **what: str
    ) -> subprocess.CompletedProcess[str]:
        code, out, err = self.forks.call({**self.environment, **environment}, *arguments, **what)
        # Airflow 3 logs to where a command's output goes.
        lines = [line for line in out.splitlines(keepends=True) if "secrets_masker" not in line]
        return subprocess.CompletedProcess("", code, "".join(lines), err)

    def apply(self, file: Path = DEFAULT_FILE, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.ask(environment, str(file), module=APPLY)

    def execute(self, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.ask(environment, code=code)

    def apply_by_command_line(self, metadata_url: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", APPLY],
            cwd=ROOT,
            env={**self.environment, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": metadata_url},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def query(self, statement: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.url) as connection:
            return connection.execute(statement).fetchall()


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory, postgres: EmbeddedPostgres) -> Iterator[Airflow]:
    folder = tmp_path_factory.mktemp("airflow")
    url = postgres.ensure_database("airflow_metadata")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
        "AIRFLOW_HOME": str(folder / "home"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url.replace("postgresql://", "postgresql+psycopg2://"),
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode(),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # Without it Airflow 2.11 opens every process with a warning on stderr.
        "AIRFLOW__METRICS__TIMER_UNIT_CONSISTENCY": "True",
        "PYTHONPATH": str(ROOT),
        **(OF_AIRFLOW_3 if MAJOR == 3 else {}),
    }
    forks = Forks("airflow.models", "airflow.providers.smtp.hooks.smtp", APPLY, environment=environment)
    served = Airflow(url, environment, forks)
    made = served.ask({}, "db", "migrate", module="airflow.__main__")
    assert made.returncode == 0, made.stderr
    yield served
    forks.close()


@pytest.fixture
def empty(airflow: Airflow) -> Airflow:
    """The database without a connection, a variable or a pool but Airflow's own."""
    with psycopg.connect(airflow.url) as connection:
        connection.execute("DELETE FROM connection")
        connection.execute("DELETE FROM variable")
        connection.execute("DELETE FROM slot_pool WHERE pool <> 'default_pool'")
    return airflow


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write_settings(**airflow_section: object) -> Path:
        file = tmp_path / "settings.yaml"
        file.write_text(json.dumps({"airflow": airflow_section}), encoding="utf-8")
        return file

    return write_settings


def test_the_projects_file_creates_its_pools_and_connections(empty: Airflow) -> None:
    result = empty.apply()

    assert (result.returncode, result.stderr) == (0, "")
    assert sorted(empty.query("SELECT pool, slots FROM slot_pool WHERE pool <> 'default_pool'")) == [
        ("market_db", 5),
        ("sensors", 2),
        ("yahoo_api", 5),
    ]
    assert empty.query(
        "SELECT conn_type, host, schema, login, port FROM connection WHERE conn_id = 'mltrading_db'"
    ) == [("postgres", "127.0.0.1", "mltrading", "mltrading", 5433)]
    # Secrets are encrypted at rest.
    assert empty.query(
        "SELECT is_encrypted, is_extra_encrypted FROM connection WHERE conn_id = 'mltrading_db'"
    ) == [(True, False)]


def test_a_second_run_changes_no_byte_and_says_so(empty: Airflow) -> None:
    everything = "SELECT c::text FROM connection c UNION ALL SELECT p::text FROM slot_pool p"
    empty.apply()
    before = sorted(empty.query(everything))

    second = empty.apply()

    assert second.returncode == 0
    assert second.stdout.splitlines()
    assert all(line.endswith(": unchanged") for line in second.stdout.splitlines())
    assert sorted(empty.query(everything)) == before


def test_what_differs_is_updated_and_what_the_file_does_not_name_stays(
    empty: Airflow, write: Callable[..., Path]
) -> None:
    connection = {"conn_id": "db", "conn_type": "postgres", "conn_host": "old", "conn_password": SECRET}
    other_pool = {"pool_name": "other", "pool_slot": 3}
    variable = {"variable_name": "colour", "variable_value": "red"}
    empty.apply(
        write(
            connections=[{**connection, "conn_extra": {"sslmode": "require"}}],
            pools=[{"pool_name": "p", "pool_slot": 1}, other_pool],
            variables=[variable],
        )
    )

    result = empty.apply(
        write(
            connections=[{"conn_id": "db", "conn_type": "postgres", "conn_host": "new"}],
            pools=[{"pool_name": "p", "pool_slot": 2, "pool_description": "two"}],
            variables=[{**variable, "variable_value": "blue"}],
        )
    )

    assert sorted(result.stdout.splitlines()) == [
        "connection db: updated (host, password, extra)",
        "pool p: updated (slots, description)",
        "variable colour: updated (val)",
    ]
    assert empty.query("SELECT host, password, extra FROM connection") == [("new", None, None)]
    assert sorted(empty.query("SELECT pool, slots FROM slot_pool WHERE pool <> 'default_pool'")) == [
        ("other", 3),
        ("p", 2),
    ]
    assert empty.execute(COLOUR).stdout.strip() == "blue"


def test_a_connection_from_the_environment_is_left_alone(empty: Airflow) -> None:
    result = empty.apply(AIRFLOW_CONN_MLTRADING_DB=f"postgres://u:{SECRET}@db.example/x")

    assert result.returncode == 0
    assert "connection mltrading_db: left alone, AIRFLOW_CONN_MLTRADING_DB provides it" in result.stdout
    assert empty.query("SELECT conn_id FROM connection") == [("smtp_default",)]
    assert SECRET not in result.stdout + result.stderr


def test_a_connection_by_uri_is_stored_in_its_parts(empty: Airflow, write: Callable[..., Path]) -> None:
    file = write(connections=[{"conn_id": "m", "conn_uri": f"smtp://u:{SECRET}@mail:1025/?disable_ssl=true"}])

    assert empty.apply(file).stdout == "connection m: created\n"
    assert empty.apply(file).stdout == "connection m: unchanged\n"
    assert empty.query("SELECT conn_type, host, port, login FROM connection") == [("smtp", "mail", 1025, "u")]


def test_no_password_reaches_the_output_or_the_table(empty: Airflow, write: Callable[..., Path]) -> None:
    connection = {"conn_id": "db", "conn_type": "postgres", "conn_password": SECRET}
    created = empty.apply(write(connections=[connection]))
    updated = empty.apply(write(connections=[{**connection, "conn_password": SECRET + "2"}]))
    broken = empty.apply(write(connections=[{**connection, "conn_port": SECRET, "conn_passwort": SECRET}]))

    assert updated.stdout == "connection db: updated (password)\n"
    assert broken.returncode == 2
    for result in (created, updated, broken):
        assert SECRET not in result.stdout + result.stderr
    assert SECRET not in str(empty.query("SELECT c::text FROM connection c"))


def test_a_connection_under_another_fernet_key_is_an_error_that_changes_nothing(
    empty: Airflow, write: Callable[..., Path]
) -> None:
    connection = {"conn_id": "db", "conn_type": "postgres", "conn_password": SECRET}
    empty.apply(write(connections=[connection]))
    file = write(connections=[{**connection, "conn_host": "x"}], pools=[{"pool_name": "p", "pool_slot": 1}])

    result = empty.apply(file, AIRFLOW__CORE__FERNET_KEY=Fernet.generate_key().decode())

    assert result.returncode == 1
    assert "error: db was stored under another Fernet key: restore AIRFLOW__CORE__FERNET_KEY" in result.stderr
    assert empty.query("SELECT 1 FROM slot_pool WHERE pool = 'p'") == []


def test_a_database_without_tables_names_the_command_that_makes_them(
    airflow: Airflow, empty_database: str
) -> None:
    error = airflow.apply_by_command_line(
        empty_database.replace("postgresql:", "postgresql+psycopg2:")
    ).stderr
    assert error.count("\n") == 1
    assert "run `airflow db migrate`" in error


def test_an_unreachable_database_is_a_one_line_error_without_its_password(airflow: Airflow) -> None:
    result = airflow.apply_by_command_line(f"postgresql+psycopg2://u:{SECRET}@127.0.0.1:1/airflow")

    assert result.returncode == 1
    assert result.stderr.startswith("error: Airflow's metadata: ")
    assert result.stderr.count("\n") == 1
    assert SECRET not in result.stderr


class Catcher:
    """Keeps the envelopes it is handed."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []

    async def handle_DATA(self, server: object, session: object, envelope: Envelope) -> str:
        self.envelopes.append(envelope)
        return "250 OK"


@pytest.fixture
def catcher() -> Iterator[tuple[Catcher, int]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    handler = Catcher()
    controller = Controller(handler, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield handler, port
    finally:
        controller.stop()


SEND = """
from airflow.providers.smtp.hooks.smtp import SmtpHook

with SmtpHook() as hook:
    hook.send_email_smtp(to="you@example.com", subject="subject", html_content="content")
"""


def test_a_mail_passes_through_the_connection_of_the_settings(
    empty: Airflow, write: Callable[..., Path], catcher: tuple[Catcher, int]
) -> None:
    handler, port = catcher
    connection = yaml.safe_load(DEFAULT_FILE.read_text("utf-8"))["airflow"]["connections"][1]
    assert empty.apply(write(connections=[{**connection, "conn_port": port}])).returncode == 0

    result = empty.execute(SEND)

    assert result.returncode == 0, result.stderr
    assert [item.mail_from for item in handler.envelopes] == ["mltrading@localhost"]


def test_a_mail_passes_through_the_connection_of_the_compose_files(
    empty: Airflow, catcher: tuple[Catcher, int]
) -> None:
    handler, port = catcher
    override = yaml.safe_load((ROOT / "docker-compose.override.yml").read_text("utf-8"))
    value = override["services"]["scheduler"]["environment"]["AIRFLOW_CONN_SMTP_DEFAULT"]
    address = value.removeprefix("${AIRFLOW_CONN_SMTP_DEFAULT:-").removesuffix("}")

    result = empty.execute(SEND, AIRFLOW_CONN_SMTP_DEFAULT=address.replace("mail:1025", f"127.0.0.1:{port}"))

    assert result.returncode == 0, result.stderr
    assert [item.mail_from for item in handler.envelopes] == ["mltrading@localhost"]


ROLES = """
from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
from include.mltrading.airflow import apply_roles

with get_application_builder() as builder:
    apply_roles.apply(builder.sm)
    apply_roles.apply(builder.sm)
"""


def test_the_roles_get_rights_to_our_dags_and_to_no_other(airflow: Airflow) -> None:
    result = airflow.execute(ROLES)
    assert result.returncode == 0, result.stderr
    rows = airflow.query(
        "SELECT role.name, action.name, resource.name FROM ab_role role"
        " LEFT JOIN ab_permission_view_role held ON held.role_id = role.id"
        " LEFT JOIN ab_permission_view pair ON pair.id = held.permission_view_id"
        " LEFT JOIN ab_permission action ON action.id = pair.permission_id"
        " LEFT JOIN ab_view_menu resource ON resource.id = pair.view_menu_id"
    )
    dags = {
        "complete-data-and-features-ondemand",
        "feature-engineering-production-subprocess",
        "yahoo-production-data-collection",
    }
    held = {
        role: {(action, name) for who, action, name in rows if who == role and str(name).startswith("DAG")}
        for role in ("MarketViewer", "MarketOperator")
    }
    read = {("can_read", f"DAG:{dag}") for dag in dags}
    edit = {("can_edit", f"DAG:{dag}") for dag in dags}
    assert {right for right in held["MarketViewer"] if right[1].startswith("DAG:")} == read
    assert {right for right in held["MarketOperator"] if right[1].startswith("DAG:")} == read | edit
    assert ("can_read", "DAGs") not in held["MarketViewer"] | held["MarketOperator"]
    assert ("can_create", "DAG Runs") in held["MarketOperator"] - held["MarketViewer"]
    # Not a single right.
    assert [row[1:] for row in rows if row[0] == "Public"] == [(None, None)]


def test_airflows_own_old_records_go_and_new_ones_stay(
    cli: Callable[..., Any], airflow: Airflow, database: str
) -> None:
    with psycopg.connect(airflow.url) as connection:
        connection.execute(
            "INSERT INTO log (dttm, event) VALUES (now() - interval '91 days', 'old'), (now(), 'new')"
        )
    done = cli("maintain", **airflow.environment, MLTRADING_DATABASE_URL=database)
    assert done.code == 0, done.out
    assert "records of before" in done.out
    assert airflow.query("SELECT event FROM log WHERE event IN ('old', 'new')") == [("new",)]
    assert airflow.query("SELECT 1 FROM pg_tables WHERE tablename LIKE '\\_airflow\\_deleted%'") == []
