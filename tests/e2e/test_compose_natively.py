"""`docker compose --profile celery up` without containers.

Each Airflow service and the queue run here by the command, environment and health check that the compose
files give them, from the files that the image would hold. Instead of a network with names there are ports
of 127.0.0.1; the log servers, which listen on all interfaces, are left out.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
from airflow_lanes import on_2
from compose_files import copy_into_the_image, env_file, interpolated, services
from left_behind import left_behind
from mail_catcher import MailCatcher
from redis_server import needs_redis

from include.market_simulator import MarketSimulator
from include.mltrading.configuration.settings import PROJECT_ROOT
from include.standalone.demo import LOAD
from include.standalone.postgres import EmbeddedPostgres
from include.standalone.stack import Stack
from include.standalone.state import free_port

# Each service, command and health check starts a whole Airflow of its own: minutes of processor time.
pytestmark = [pytest.mark.e2e, pytest.mark.exhaustive, needs_redis, on_2]

AIRFLOW_SERVICES = ("airflow-worker", "scheduler", "webserver", "triggerer")


@dataclass
class Composition:
    """The services' commands, made to run on this machine. image: the folder that /usr/local/airflow is.

    addresses: what takes the place of a name and port of compose's network.
    """

    image: Path
    variables: Mapping[str, str]
    addresses: Mapping[str, str]
    environment: Mapping[str, str]
    stack: Stack

    def here(self, text: str) -> str:
        """The text with the values of .env, and addresses of this machine."""
        text = interpolated(text, self.variables)
        for address, ours in self.addresses.items():
            text = text.replace(address, ours)
        return text

    def environment_of(self, service: str) -> dict[str, str]:
        wanted = {name: self.here(str(value)) for name, value in services()[service]["environment"].items()}
        return {**wanted, **self.environment}

    def command(self, command: list[str]) -> list[str]:
        """The command of a service or a health check, in the image's folder."""
        kind, *rest = command
        if kind == "CMD":
            command = rest
        elif kind == "CMD-SHELL":
            command = ["sh", "-c", *rest]
        command = [self.here(word) for word in command]
        if command[0] == "airflow":
            command = [*command, "--skip-serve-logs"] if command[1] in ("triggerer", "celery") else command
        command[-1] = command[-1].replace(
            "exec airflow scheduler", "exec airflow scheduler --skip-serve-logs"
        )
        return ["env", "-C", str(self.image), *command]

    def start(self, service: str) -> None:
        self.stack.start(service, self.command(services()[service]["command"]), self.environment_of(service))

    def run(self, command: list[str], service: str = "scheduler") -> subprocess.CompletedProcess[str]:
        """`docker compose run SERVICE COMMAND`, to its end."""
        return subprocess.run(
            self.command(command),
            env=self.environment_of(service),
            capture_output=True,
            text=True,
            timeout=300,
        )

    def is_healthy(self, service: str) -> bool:
        return self.run(services()[service]["healthcheck"]["test"], service).returncode == 0


@pytest.fixture(scope="module")
def mails() -> Iterator[MailCatcher]:
    with MailCatcher() as catcher:
        yield catcher


@pytest.fixture(scope="module")
def composition(tmp_path_factory: pytest.TempPathFactory, mails: MailCatcher) -> Iterator[Composition]:
    folder = tmp_path_factory.mktemp("compose")
    image = folder / "image"
    copy_into_the_image(image)
    (image / "symbols.txt").write_text("AAPL\n")
    variables = {**env_file(folder), "AIRFLOW_EXECUTOR": "CeleryExecutor"}
    queue, web = free_port(), free_port()
    with (
        MarketSimulator() as simulator,
        EmbeddedPostgres(folder / "postgres", report=lambda line: None) as postgres,
        Stack(folder / "stack", report=lambda line: None) as stack,
    ):
        make_databases(postgres, variables)
        environment = {
            # What the image and the container bring.
            "PATH": f"{Path(sys.executable).parent}:{postgres.bin}:{os.defpath}",
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(image),
            "AIRFLOW_HOME": str(image),
            "HOSTNAME": socket.gethostname(),
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
            # What a container's own network brings.
            "AIRFLOW__WEBSERVER__WEB_SERVER_HOST": "127.0.0.1",
            "AIRFLOW__WEBSERVER__WEB_SERVER_PORT": str(web),
            "GUNICORN_CMD_ARGS": "--no-control-socket",
            "PYTHONWARNINGS": "ignore",
            # Each process of the web server loads all of Airflow; the scheduler looks as seldom as elsewhere.
            "AIRFLOW__WEBSERVER__WORKERS": "1",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            # Not Yahoo, and not all symbols.
            "MLTRADING_YAHOO_URL": simulator.url,
            "MLTRADING_YAHOO_REQUESTS_PER_SECOND": "20",
            "MLTRADING_SYMBOLS_FILE": str(image / "symbols.txt"),
        }
        addresses = {
            "@postgres:5432": f"@127.0.0.1:{postgres.port}",
            "@market-db:5432": f"@127.0.0.1:{postgres.port}",
            "@redis:6379": f"@127.0.0.1:{queue}",
            "//mail:1025": f"//127.0.0.1:{mails.port}",
            "127.0.0.1:8080": f"127.0.0.1:{web}",
            # The queue's configuration and its client.
            "dir /data": f"dir {folder}\\nbind 127.0.0.1\\nport {queue}",
            "redis-cli ": f"redis-cli -p {queue} ",
        }
        stack.environment = dict(environment)
        yield Composition(image, variables, addresses, environment, stack)
    # Each service is ended by the signal that Docker gives its first process.
    assert left_behind(f"127.0.0.1:{queue}") == []


def make_databases(postgres: EmbeddedPostgres, variables: Mapping[str, str]) -> None:
    """Both services' databases, as their images make them at the first start."""
    server = postgres.url("postgres").rpartition("/")[0]
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(
            f"CREATE ROLE airflow LOGIN SUPERUSER PASSWORD '{variables['AIRFLOW_DB_PASSWORD']}'"
        )
        connection.execute("CREATE DATABASE airflow OWNER airflow")
        connection.execute("CREATE DATABASE mltrading")
    subprocess.run(
        [
            str(postgres.bin / "psql"),
            "-X",
            "-q",
            "-f",
            str(PROJECT_ROOT / "sql/roles.sql"),
            f"{server}/mltrading",
        ],
        env={
            **os.environ,
            **{name: variables[name] for name in ("MARKET_DB_PASSWORD", "MARKET_READONLY_PASSWORD")},
        },
        check=True,
    )


def test_init_ends_well_and_may_be_repeated(composition: Composition) -> None:
    for _ in range(2):
        done = composition.run(services()["init"]["command"], "init")
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_services_become_healthy_and_the_dags_run_through_them(
    composition: Composition, mails: MailCatcher
) -> None:
    stack = composition.stack
    composition.start("redis")
    stack._until("the queue", 20, lambda: composition.is_healthy("redis"))
    for service in AIRFLOW_SERVICES:
        composition.start(service)
    metadata = composition.environment_of("scheduler")["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    with psycopg.connect(metadata.replace("+psycopg2", ""), autocommit=True) as connection:
        # Most health checks start a whole Airflow: asked once the service can be healthy.
        beats = "SELECT 1 FROM job WHERE job_type IN ('SchedulerJob', 'TriggererJob') HAVING count(*) = 2"
        stack._until("both heartbeats", 240, lambda: connection.execute(beats).fetchone())
        worker = stack.state / "logs" / "airflow-worker.log"
        stack._until("the worker", 240, lambda: " ready." in worker.read_text())
        for service in AIRFLOW_SERVICES:
            stack._until(f"{service} to be healthy", 240, lambda s=service: composition.is_healthy(s))

        known = "SELECT 1 FROM dag JOIN serialized_dag USING (dag_id) WHERE is_paused HAVING count(*) = 3"
        stack._until("the DAGs, paused", 120, lambda: connection.execute(known).fetchone())
        unpaused = composition.run(["airflow", "dags", "unpause", LOAD])
        assert unpaused.returncode == 0, unpaused.stderr
        done = composition.run(
            ["airflow", "dags", "trigger", LOAD, "--run-id", "first", "--conf", '{"period": "1mo"}']
        )
        assert done.returncode == 0, done.stderr
        state = "SELECT state FROM dag_run WHERE run_id = 'first' AND state IN ('success', 'failed')"
        found = stack._until("the run", 240, lambda: connection.execute(state).fetchone())
    assert found == ("success",)
    story = composition.run([sys.executable, "-m", "include.mltrading", "check", "--run", "first"])
    assert story.returncode == 0, story.stdout + story.stderr
    assert "succeeded in" in worker.read_text()

    sent = composition.run([sys.executable, "-m", "include.mltrading", "alerts", "test"])
    assert sent.returncode == 0, sent.stderr
    assert mails.subjects


def test_the_administrator_of_the_env_file_logs_in_and_sees_the_monitor(composition: Composition) -> None:
    base = composition.here("http://127.0.0.1:8080")
    session = requests.Session()
    token = re.search(
        r'name="csrf_token"[^>]*value="([^"]+)"', session.get(f"{base}/login/", timeout=60).text
    )
    assert token
    form = {"username": "admin", "password": composition.variables["AIRFLOW_ADMIN_PASSWORD"]}
    session.post(f"{base}/login/", data={**form, "csrf_token": token[1]}, timeout=60)
    answer: Any = session.get(f"{base}/market_monitor/", timeout=60, allow_redirects=False)
    assert answer.status_code == 200
    assert session.get(f"{base}/market_monitor/health", timeout=60).text.strip() in ("up", "stale")
