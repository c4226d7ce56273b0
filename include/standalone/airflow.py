"""Airflow on a bare machine: its environment, its metadata database, its administrator.

Nothing is written into the checkout: Airflow's home, logs and secrets lie in the state folder. Whatever
here is a matter of taste gives way to an `AIRFLOW__…` variable the user has set; what keeps the
installation working and closed does not.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from include.standalone import processes
from include.standalone.postgres import EmbeddedPostgres
from include.standalone.state import (
    PROJECT,
    StandaloneError,
    free_port,
    locked,
    make_folder,
    port_is_free,
    secret,
    write_private,
)

MAJOR = int(importlib.metadata.version("apache-airflow").partition(".")[0])
# Each major has its own tables, settings file and logs: an older one cannot read what a newer one wrote.
METADATA_DATABASE = "airflow" if MAJOR == 2 else f"airflow{MAJOR}"
MARKET_DATABASE = "mltrading"
# The market role's share of the server's connections.
MARKET_CONNECTION_LIMIT = 25
ADMIN = "admin"
SETTINGS_FILE = PROJECT / "airflow_settings.yaml"
ROLES_FILE = PROJECT / "include" / "mltrading" / "airflow" / "apply_roles.py"

# Measured on two cores with LocalExecutor and PostgreSQL; a user's own variables win over these.
_TUNING = {
    # More task processes than cores: a task spends most of its time waiting for Yahoo or PostgreSQL.
    "AIRFLOW__CORE__PARALLELISM": "8",
    # One task a second is the limit at the default of 1 s.
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
    # After a power cut the tasks that were running start again within 40 s instead of 320 s.
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "15",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    # The default looks the machine's name up in DNS, which can hang on a laptop without a network.
    "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
    # Airflow warns at every start about what its next major removes inside its own providers.
    "PYTHONWARNINGS": "ignore::DeprecationWarning,ignore::FutureWarning,ignore::UserWarning",
    # Process titles written over /proc/PID/environ would hide the mark by which Stack knows its own.
    "SPT_NOENV": "1",
}
_TUNING_2 = {
    # Each finished task would otherwise do a little scheduling of its own, at 1.4 times the wall time.
    "AIRFLOW__SCHEDULER__SCHEDULE_AFTER_TASK_EXECUTION": "False",
    "AIRFLOW__SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": "30",
    # Three small files: parsed twice a minute, and missed SLAs are looked for at the same pace.
    "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "30",
    "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL": "60",
    "AIRFLOW__SCHEDULER__PARSING_PROCESSES": "1",
    # Two, so that a slow page does not hold up the health check.
    "AIRFLOW__WEBSERVER__WORKERS": "2",
    # No need to replace workers now and then: nothing here runs for months.
    "AIRFLOW__WEBSERVER__WORKER_REFRESH_INTERVAL": "0",
    # gunicorn would open a control socket in the home folder, the same for every installation.
    "GUNICORN_CMD_ARGS": "--no-control-socket",
    "AIRFLOW__WEBSERVER__INSTANCE_NAME": "MLTrading",
    "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
}
_TUNING_3 = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
    "AIRFLOW__API__INSTANCE_NAME": "MLTrading",
}


def airflow_environment(
    state: Path,
    postgres: EmbeddedPostgres,
    *,
    market_database: str = MARKET_DATABASE,
    metadata_database: str = METADATA_DATABASE,
) -> dict[str, str]:
    """The complete environment for Airflow and every command of ours; `postgres` must have been started.

    market_database: name of the database on the embedded server, unless MLTRADING_DATABASE_URL is set.
    """
    home = airflow_home(state)
    port = web_port(state)
    market_url = foreign_database_url(postgres) or postgres.url(market_database)
    metadata_url = postgres.url(metadata_database).replace("postgresql://", "postgresql+psycopg2://", 1)
    fixed = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
        # 32 random bytes in URL-safe base64 with its padding.
        "AIRFLOW__CORE__FERNET_KEY": secret(home / "fernet_key") + "=",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": metadata_url,
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        **(_servers_of_2(home, port) if MAJOR == 2 else _servers_of_3(home, port)),
        "AIRFLOW_CONN_MLTRADING_DB": _connection(market_url),
        "MLTRADING_DATABASE_URL": market_url,
        "MLTRADING_STATE_DIR": str(state),
        "PYTHONPATH": _prepended(str(PROJECT), os.environ.get("PYTHONPATH", "")),
        # .venv/bin for `airflow` and `python`, PostgreSQL's own for psql and pg_dump of the server's version.
        "PATH": _prepended(str(Path(sys.executable).parent), str(postgres.bin), os.environ.get("PATH", "")),
        # A proxy must not be asked for servers of this machine.
        "NO_PROXY": _no_proxy("NO_PROXY"),
        "no_proxy": _no_proxy("no_proxy"),
    }
    return {**_TUNING, **(_TUNING_2 if MAJOR == 2 else _TUNING_3), **os.environ, **fixed}


def _servers_of_2(home: Path, port: int) -> dict[str, str]:
    return {
        "AIRFLOW__LOGGING__DAG_PROCESSOR_MANAGER_LOG_LOCATION": str(home / "logs" / "dag_processor.log"),
        "AIRFLOW__SCHEDULER__CHILD_PROCESS_LOG_DIRECTORY": str(home / "logs" / "scheduler"),
        "AIRFLOW__WEBSERVER__CONFIG_FILE": str(home / "webserver_config.py"),
        "AIRFLOW__WEBSERVER__WEB_SERVER_HOST": "127.0.0.1",
        "AIRFLOW__WEBSERVER__WEB_SERVER_PORT": str(port),
        "AIRFLOW__WEBSERVER__BASE_URL": web_url(port),
        "AIRFLOW__WEBSERVER__SECRET_KEY": secret(home / "secret_key"),
    }


def _servers_of_3(home: Path, port: int) -> dict[str, str]:
    return {
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(home / "logs" / "dag_processor"),
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{web_url(port)}/execution/",
        "AIRFLOW__FAB__CONFIG_FILE": str(home / "webserver_config.py"),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": web_url(port),
        "AIRFLOW__API__SECRET_KEY": secret(home / "secret_key"),
        # HMAC with SHA-512 wants at least 64 bytes.
        "AIRFLOW__API_AUTH__JWT_SECRET": secret(home / "jwt_secret", length=64),
    }


def web_url(port: int) -> str:
    """Where the web server, on Airflow 3 the API server, answers."""
    return f"http://127.0.0.1:{port}"


def airflow_home(state: Path) -> Path:
    """Airflow's home in the state folder; made where it is missing."""
    return make_folder(state / METADATA_DATABASE, 0o700)


def ensure_databases(
    postgres: EmbeddedPostgres, *, market_database: str, metadata_database: str
) -> dict[str, str]:
    """Make both databases on the running server where they are missing; the environment that names them."""
    postgres.ensure_database(metadata_database)
    if foreign_database_url(postgres) is None:
        postgres.ensure_database(market_database, MARKET_CONNECTION_LIMIT)
        postgres.apply_roles(market_database)
    return airflow_environment(
        postgres.state, postgres, market_database=market_database, metadata_database=metadata_database
    )


def foreign_database_url(postgres: EmbeddedPostgres) -> str | None:
    """MLTRADING_DATABASE_URL where the user points it at another server than the embedded one.

    Inside `make shell` it is set to the embedded server, for the database of that shell.
    """
    url = os.environ.get("MLTRADING_DATABASE_URL")
    if not url:
        return None
    try:
        parts = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # libpq's own words repeat the URL, password and all.
        raise StandaloneError(
            "MLTRADING_DATABASE_URL is no libpq URL: write postgresql://user:password@host:port/database"
        ) from None
    own = parts.get("host") == "127.0.0.1" and str(parts.get("port")) == str(postgres.port)
    return None if own else url


def web_port(state: Path) -> int:
    """The web server's port: 8080 when free at the first call, stored from then on."""
    record = airflow_home(state) / "web_port"
    if not record.exists():
        write_private(record, str(free_port(8080)))
    return int(record.read_text())


def vacate_web_port(state: Path, report: Callable[[str], None] = print) -> None:
    """Choose another port when the stored one is taken; to be called while no web server of ours runs."""
    port = web_port(state)
    if not port_is_free(port):
        other = free_port()
        report(f"port {port} is taken by {processes.holder_of_port(port)}: the web server moves to {other}")
        write_private(airflow_home(state) / "web_port", str(other))


def admin_password(state: Path) -> str:
    """The password of the administrator `admin`, generated once per installation."""
    return secret(airflow_home(state) / "admin_password", length=12)


def prepare_airflow(env: Mapping[str, str], report: Callable[[str], None] = print) -> None:
    """Bring Airflow's metadata database up to date: tables, administrator, roles, pools and connections.

    Does nothing, in a few milliseconds, when that database, Airflow's version and airflow_settings.yaml
    are those of the last time, and what the environment gave then it still gives. Raises StandaloneError
    with Airflow's own last words.
    """
    state = Path(env["MLTRADING_STATE_DIR"])
    home = Path(env["AIRFLOW_HOME"])
    metadata_url = env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", "", 1)
    stamp = home / f"prepared_{conninfo_to_dict(metadata_url)['dbname']}"
    with locked(home / "prepare_lock", timeout=300):
        fingerprint, _, given = (stamp.read_text() if stamp.exists() else "").partition("\n")
        if fingerprint == _fingerprint(metadata_url) and set(given.split()) <= set(env):
            return
        stamp.unlink(missing_ok=True)
        report("preparing Airflow's metadata database")
        run(env, "-m", "airflow", "db", "migrate")
        run(env, "-m", "include.standalone.admin_user", ADMIN, input=admin_password(state))
        run(env, "-m", "include.mltrading.airflow.apply_settings")
        # The settings leave alone what a variable gives.
        given = " ".join(name for name in env if name.startswith(("AIRFLOW_CONN_", "AIRFLOW_VAR_")))
        write_private(stamp, f"{_fingerprint(metadata_url)}\n{given}")


def run(env: Mapping[str, str], *arguments: str, input: str = "") -> str:
    """Run this Python with `arguments` in the project folder; its standard output.

    Raises StandaloneError with the command's last line when it fails.
    """
    done = subprocess.run(  # noqa: S603 (our own command lines, no shell)
        [sys.executable, *arguments],
        # The output is the answer, not the log.
        env={**env, "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING"},
        cwd=PROJECT,
        input=input,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        raise StandaloneError(f"`{' '.join(arguments)}` ended with {done.returncode}: {words[-1].strip()}")
    return done.stdout


def _fingerprint(metadata_url: str) -> str:
    """What prepare_airflow depends on: the schema, Airflow's version, our roles and the settings file."""
    with psycopg.connect(metadata_url) as connection:
        revision = None
        if connection.execute("SELECT to_regclass('alembic_version') IS NOT NULL").fetchone() == (True,):
            revision = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return json.dumps(
        {
            "schema": revision,
            "airflow": importlib.metadata.version("apache-airflow"),
            "roles": hashlib.sha256(ROLES_FILE.read_bytes()).hexdigest(),
            "settings": hashlib.sha256(SETTINGS_FILE.read_bytes()).hexdigest(),
        }
    )


def _connection(url: str) -> str:
    """`url` (libpq) as the JSON form of an Airflow connection."""
    parts = {key: str(value) for key, value in conninfo_to_dict(url).items()}
    return json.dumps(
        {
            "conn_type": "postgres",
            "host": parts.pop("host", ""),
            "port": int(parts.pop("port", "5432")),
            "login": parts.pop("user", ""),
            "password": parts.pop("password", ""),
            "schema": parts.pop("dbname", ""),
            "extra": parts,
        }
    )


def _prepended(*parts: str) -> str:
    """`parts` joined as a search path, each entry once."""
    return os.pathsep.join(dict.fromkeys(os.pathsep.join(part for part in parts if part).split(os.pathsep)))


def _no_proxy(name: str) -> str:
    return ",".join(filter(None, [os.environ.get(name), "127.0.0.1,localhost"]))
