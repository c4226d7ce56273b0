"""An embedded PostgreSQL for runs on a bare machine.

It listens on 127.0.0.1 only, asks for a generated password (scram-sha-256), opens no Unix socket and keeps
fsync on. What it is made of and where it lies: postgres_files.py.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from include.standalone import processes
from include.standalone.postgres_files import ServerFiles
from include.standalone.state import (
    PROJECT,
    StandaloneError,
    free_port,
    is_locked,
    locked,
    make_folder,
    port_is_free,
    secret,
    state_folder,
    write_private,
)

SUPERUSER = "postgres"
# The analysts' role in every market database; see sql/roles.sql.
READONLY = "mltrading_readonly"
ROLES_FILE = PROJECT / "sql" / "roles.sql"

_SERVER_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "on",
    # Airflow's processes hold up to ~60 connections, the market role is limited to 25.
    "max_connections": "100",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Compiling a plan costs more than every query here takes.
    "jit": "off",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}


class EmbeddedPostgres:
    """The PostgreSQL server of one installation.

    Several processes may use it at once: each calls start() and stop(), the last one to stop ends the
    server. A user that died without stop() does not count.

    state: the installation's state folder (default: `state_folder()`).
    binaries: a folder with PostgreSQL's bin/, lib/ and share/ (default: the wheel's).
    report: called with one-line messages a person should see.
    """

    def __init__(
        self,
        state: Path | None = None,
        *,
        binaries: Path | None = None,
        report: Callable[[str], None] = print,
    ) -> None:
        self.state = (state or state_folder()).absolute()
        self.files = ServerFiles(self.state, binaries)
        self.folder = self.files.folder
        self.log = self.state / "logs" / "postgres.log"
        self._report = report
        # Each user holds a shared lock on one file: the kernel lets go of it however he ends.
        self._use = ExitStack()
        self._in_use = False

    # What others read ---------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The server's TCP port on 127.0.0.1; 0 before the first start."""
        record = self.folder / "port"
        return int(record.read_text()) if record.exists() else 0

    @property
    def data(self) -> Path:
        """PostgreSQL's data folder."""
        return self.files.data

    @property
    def bin(self) -> Path:
        """The folder of psql, pg_dump and pg_restore, of the server's own version."""
        return self.files.wheel / "bin"

    def running(self) -> bool:
        """True while the server of this data folder runs; a pid file may also name a stranger."""
        pid = self._recorded_pid()
        if pid is None:
            return False
        try:
            process = psutil.Process(pid)
            if process.name() != "postgres":
                return False
            try:
                return Path(process.cwd()) == self.data.resolve()
            except psutil.AccessDenied:
                # In a container root may not look into another account's processes, but at what they run.
                return str(self.data) in process.cmdline()
        except psutil.NoSuchProcess:
            return False

    def url(self, database: str) -> str:
        """A libpq URL with the password, for the role that owns `database` (see ensure_database)."""
        role = _role_of(database)
        return f"postgresql://{role}:{quote(self._password(role), safe='')}@127.0.0.1:{self.port}/{database}"

    # Start and stop -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Make the server run and count this object among its users; nothing to do when it already does.

        Raises StandaloneError.
        """
        self.files.account()
        make_folder(self.state, 0o711)
        make_folder(self.folder, 0o711)
        make_folder(self.log.parent, 0o700)
        try:
            with locked(self.folder / "lock"):
                if not self.running():
                    self.files.settle()
                    self._initialise()
                    self._launch()
                if not self._in_use:
                    self._use.enter_context(locked(self.folder / "users", shared=True))
                    self._in_use = True
        except OSError as error:
            raise StandaloneError(
                f"the embedded PostgreSQL in {self.folder} cannot start ({error}): "
                "is the folder another user's? MLTRADING_STATE_DIR names a different one"
            ) from error

    def stop(self) -> None:
        """No longer use the server; the last user's stop() shuts it down. Does nothing when not started."""
        if not self._in_use:
            return
        with locked(self.folder / "lock"):
            self._use.close()
            self._in_use = False
            if not is_locked(self.folder / "users"):
                self._shut_down()

    def remove(self) -> None:
        """Shut the server down, whoever uses it, and delete its data, its password and its private folder."""
        self._use.close()
        self._in_use = False
        self._shut_down()
        self.files.remove()

    def __enter__(self) -> EmbeddedPostgres:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Databases ----------------------------------------------------------------------------------------

    def ensure_database(self, name: str, connection_limit: int = -1) -> str:
        """Create database `name`, owned by a role of the same name, unless it exists; returns its URL.

        connection_limit: how many connections the role may hold at once, -1 for no limit.
        """
        role = _role_of(name)
        with psycopg.connect(self.url(SUPERUSER), autocommit=True) as connection:
            if role != SUPERUSER:
                known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone()
                connection.execute(
                    sql.SQL("{} ROLE {} LOGIN PASSWORD {} CONNECTION LIMIT {}").format(
                        sql.SQL("ALTER" if known else "CREATE"),
                        sql.Identifier(role),
                        sql.Literal(self._password(role)),
                        sql.Literal(connection_limit),
                    )
                )
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                connection.execute(
                    sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(role))
                )
        return self.url(name)

    def apply_roles(self, name: str) -> None:
        """Give market database `name` its schema and the analysts' role (sql/roles.sql); may be repeated.

        Raises StandaloneError.
        """
        done = subprocess.run(  # noqa: S603 (our own command line, no shell)
            [str(self.bin / "psql"), "-qX", "-f", str(ROLES_FILE)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            # Passwords by the environment: command lines are public.
            env={
                "PGHOST": "127.0.0.1",
                "PGPORT": str(self.port),
                "PGUSER": SUPERUSER,
                "PGPASSWORD": self._password(SUPERUSER),
                "PGDATABASE": name,
                "MARKET_DB_ROLE": _role_of(name),
                "MARKET_DB_PASSWORD": self._password(_role_of(name)),
                "MARKET_READONLY_PASSWORD": self._password(READONLY),
            },
        )
        if done.returncode != 0:
            raise StandaloneError(f"{ROLES_FILE.name} failed in {name}: {done.stderr.strip()}")

    def _secret_file(self) -> Path:
        return self.folder / "password"

    def _password(self, role: str) -> str:
        """The role's password: the generated secret for the superuser, derived from it for the others."""
        generated = secret(self._secret_file())
        if role == SUPERUSER:
            return generated
        return hmac.new(generated.encode(), role.encode(), hashlib.sha256).hexdigest()[:40]

    # The server ---------------------------------------------------------------------------------------

    def _initialise(self) -> None:
        """Make the data folder, once."""
        if (self.data / "PG_VERSION").exists():
            if not self._secret_file().exists():
                raise StandaloneError(
                    f"{self._secret_file()} is gone and {self.data} cannot be opened without it: "
                    "put it back, or begin anew with `make clean`"
                )
            return
        self._report("creating the PostgreSQL data folder")
        account = self.files.account()
        # Made under another name and renamed when complete: an interrupted run leaves nothing to trip over.
        fresh = self.data.with_name("data.new")
        password_file = self.data.with_name("initial_password")
        if fresh.exists():
            shutil.rmtree(fresh)
        fresh.mkdir(mode=0o700)
        write_private(password_file, self._password(SUPERUSER))
        if account is not None:
            os.chown(fresh, account.uid, account.gid)
            os.chown(password_file, account.uid, account.gid)
        command = [
            str(self.files.programs / "bin" / "initdb"),
            *("-D", str(fresh), "-U", SUPERUSER, "-A", "scram-sha-256", "--pwfile", str(password_file)),
            *("--encoding=UTF8", "--locale=C", "--no-instructions"),
        ]
        done = processes.run(command, account=account)
        password_file.unlink()
        if done.returncode != 0:
            reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[0]
            raise StandaloneError(f"PostgreSQL's initdb failed in {fresh}: {reason}")
        fresh.rename(self.data)

    def _launch(self) -> None:
        for _ in range(5):
            # PostgreSQL itself drops the file when its process is gone, but not when the pid was given away.
            pid = self._recorded_pid()
            if pid is not None and psutil.pid_exists(pid):
                (self.data / "postmaster.pid").unlink()
            self._choose_port()
            said = self._start_server()
            if self.running():
                self._require_password()
                return
            if "Address already in use" in said:
                continue  # taken since we looked; the next turn says by whom
            if "is still in use" in said:
                time.sleep(3)  # processes of a killed server that are about to end
                continue
            fatal = [line for line in said.splitlines() if "FATAL" in line or "PANIC" in line]
            reason = (fatal or said.splitlines() or ["no message"])[-1]
            raise StandaloneError(f"PostgreSQL did not start: {reason.strip()} (log: {self.log})")
        raise StandaloneError(f"PostgreSQL did not start after 5 attempts: see {self.log}")

    def _choose_port(self) -> None:
        """The port of last time, another one where that is taken."""
        port = self.port
        if port and port_is_free(port):
            return
        chosen = free_port()
        if port:
            self._report(
                f"port {port} is taken by {processes.holder_of_port(port)}: PostgreSQL moves to port {chosen}"
            )
        write_private(self.folder / "port", str(chosen))

    def _start_server(self) -> str:
        """Start the server and wait until it is ready, or until it has failed; what it said meanwhile."""
        settings = {**_SERVER_SETTINGS, "port": str(self.port)}
        options = shlex.join(word for key, value in settings.items() for word in ("-c", f"{key}={value}"))
        with self.log.open("a+b") as log:
            begin = log.seek(0, os.SEEK_END)
            if self._pg_ctl("start", "-t", "60", "-o", options, log=log) != 0:
                self._shut_down()  # one that is not ready in time
            log.seek(begin)
            return log.read().decode(errors="replace")

    def _require_password(self) -> None:
        """Shut the server down and raise StandaloneError where it does not accept our password."""
        try:
            psycopg.connect(self.url(SUPERUSER), connect_timeout=10).close()
        except psycopg.OperationalError as error:
            self._shut_down()
            if "password authentication failed" not in str(error):
                raise StandaloneError(f"PostgreSQL started and refuses us: {error}") from error
            raise StandaloneError(
                f"{self._secret_file()} does not hold the password of {self.data}: "
                "put the right one back, or begin anew with `make clean`"
            ) from error

    def _shut_down(self) -> None:
        # The immediate one leaves it to the next start to recover.
        for mode, seconds in (("fast", "30"), ("immediate", "10")):
            if not self.running() or self._pg_ctl("stop", "-m", mode, "-t", seconds) == 0:
                return
        raise StandaloneError(f"PostgreSQL does not end: see {self.log}")

    def _pg_ctl(self, action: str, *options: str, log: BinaryIO | None = None) -> int:
        command = [str(self.files.programs / "bin" / "pg_ctl"), action, "-s", "-w", "-D", str(self.data)]
        return processes.run([*command, *options], account=self.files.account(), log=log).returncode

    def _recorded_pid(self) -> int | None:
        try:
            return int((self.data / "postmaster.pid").read_text().split()[0])
        except (FileNotFoundError, ValueError, IndexError):
            return None


def _role_of(database: str) -> str:
    """Every database belongs to the role of its name; the maintenance database to the superuser."""
    return SUPERUSER if database in (SUPERUSER, "template1") else database
