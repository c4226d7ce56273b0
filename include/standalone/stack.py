"""The processes of a bare-machine run: started, watched, and ended together.

    with Stack() as stack:
        stack.start_database()
        stack.export("MLTRADING_YAHOO_URL", stack.start_simulator("--seed", "1"))
        stack.start_scheduler()
        print(stack.start_webserver())
        stack.wait()

Leaving the block, by whatever way, ends every process it started and their descendants. What a kill -9
of the whole stack leaves behind is ended by the next start: every process carries a random mark in its
environment, so that a foreign one is never touched.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import FrameType
from typing import TypeVar

import psutil
import psycopg

from include.standalone import airflow, processes
from include.standalone.postgres import EmbeddedPostgres
from include.standalone.state import (
    PROJECT,
    StandaloneError,
    is_locked,
    locked,
    make_folder,
    state_folder,
    write_private,
)

Found = TypeVar("Found")

MARK = "MLTRADING_STACK"
_TAIL_LINES = 15
_WEB_SERVER, _HEALTH = (
    ("webserver", "/health") if airflow.MAJOR == 2 else ("api-server", "/api/v2/monitor/health")
)


class Stopped(BaseException):
    """SIGTERM or SIGHUP arrived; like KeyboardInterrupt, no ordinary `except` catches it.

    exit_code: 128 + the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


@dataclass(frozen=True)
class Started:
    """A process of the stack. name: as given; log: the file with its output since this start."""

    name: str
    log: Path
    child: subprocess.Popen[bytes]

    def tail(self) -> str:
        """The last lines of the log, indented."""
        lines = self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return "\n".join(f"    {line}" for line in lines)


@dataclass(frozen=True)
class Record:
    """What is known of the last stack. pid: None when it ended in order. exported: see Stack.export."""

    pid: int | None
    token: str
    market_database: str
    metadata_database: str
    exported: dict[str, str]


class Stack:
    """One installation's running processes; at most one per state folder at a time.

    state: the state folder (default: `state_folder()`).
    market_database: the database on the embedded server, unless MLTRADING_DATABASE_URL is set.
    metadata_database: the one Airflow keeps its own tables in.
    report: called with one-line messages a person should see.
    """

    # Seconds a process has to end by itself before it is killed.
    patience = 10.0

    def __init__(
        self,
        state: Path | None = None,
        *,
        market_database: str = airflow.MARKET_DATABASE,
        metadata_database: str = airflow.METADATA_DATABASE,
        report: Callable[[str], None] = print,
    ) -> None:
        self.state = (state or state_folder()).absolute()
        self.postgres = EmbeddedPostgres(self.state, report=report)
        self.market_database = market_database
        self.metadata_database = metadata_database
        # Every process started from now on gets it; complete once start_database() has returned.
        self.environment: dict[str, str] = dict(os.environ)
        self._report = report
        self._token = secrets.token_hex(16)
        self._exported: dict[str, str] = {}
        self._started: list[Started] = []
        self._database_used = False
        self._handlers: dict[int, object] = {}
        self._alone = ExitStack()

    # Life ---------------------------------------------------------------------------------------------

    def __enter__(self) -> Stack:
        make_folder(self.state, 0o711)
        record = read_record(self.state)
        try:
            self._alone.enter_context(locked(_lock_file(self.state), timeout=0.2))
        except StandaloneError:
            raise StandaloneError(
                f"already running here as pid {record.pid if record else '?'}: end it first "
                f"(Ctrl-C in its terminal, or `kill {record.pid if record else 'PID'}`)"
            ) from None
        if record is not None:
            self._end(f"{MARK}={record.token}", self.patience / 2)
        self._write_record()
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, _raise_stopped)
        # A script's background job inherits that Ctrl-C is ignored.
        self._handlers[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
        return self

    def __exit__(self, *_: object) -> None:
        """End every process, the database last; takes at most ~15 s and leaves no process and no port."""
        # A second Ctrl-C must not leave half of them behind.
        for number in self._handlers:
            signal.signal(number, signal.SIG_IGN)
        try:
            self._end(f"{MARK}={self._token}", self.patience)
            self._started.clear()
            self._database_used = False
            self.postgres.stop()
            self._write_record(over=True)
            self._alone.close()
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)  # type: ignore[arg-type]
            self._handlers.clear()

    def export(self, name: str, value: str) -> None:
        """Set a variable for every process started from now on, and for `make shell` while this runs."""
        self._exported[name] = value
        self.environment[name] = value
        self._write_record()

    # Starting -----------------------------------------------------------------------------------------

    def start_database(self) -> str:
        """Start PostgreSQL with both databases and prepare Airflow's; the market database's URL.

        Raises StandaloneError.
        """
        self.postgres.start()
        self._database_used = True
        airflow.vacate_web_port(self.state, self._report)
        self.environment |= airflow.ensure_databases(
            self.postgres, market_database=self.market_database, metadata_database=self.metadata_database
        )
        self.environment |= self._exported
        self.environment[MARK] = self._token
        airflow.prepare_airflow(self.environment, self._report)
        return self.environment["MLTRADING_DATABASE_URL"]

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Started:
        """Start `argv` in the project folder, output to logs/NAME.log.

        env: variables beside those of `environment`. Raises StandaloneError when it cannot be started.
        """
        log = make_folder(self.state / "logs", 0o700) / f"{name}.log"
        with log.open("wb") as file:
            try:
                child = subprocess.Popen(  # noqa: S603 (our own command lines, no shell)
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    cwd=PROJECT,
                    # Unbuffered: the log says at once what the process says.
                    env={**self.environment, "PYTHONUNBUFFERED": "1", **(env or {}), MARK: self._token},
                    start_new_session=True,  # Ctrl-C in the terminal passes it by
                )
            except OSError as error:
                raise StandaloneError(f"cannot start {name} ({argv[0]}): {error.strerror}") from error
        started = Started(name, log, child)
        self._started.append(started)
        return started

    def start_simulator(self) -> str:
        """Start the market simulator on a free port; its URL."""
        simulator = self.start("simulator", [sys.executable, "-m", "include.market_simulator"])
        found = self._until(
            "the market simulator prints its address",
            30,
            lambda: re.search(r"^http://127\.0\.0\.1:\d+$", simulator.log.read_text(), re.MULTILINE),
        )
        return found.group()

    def start_scheduler(self) -> None:
        """Start Airflow's scheduler and wait for its first heartbeat.

        On Airflow 3 also what it cannot do without: the API server, the DAG processor and the triggerer.
        """
        if airflow.MAJOR > 2 and "webserver" not in {started.name for started in self._started}:
            self.start_webserver()
        metadata = self.postgres.url(self.metadata_database)
        with psycopg.connect(metadata, autocommit=True) as connection:
            newest = "SELECT coalesce(max(id), 0) FROM job WHERE job_type = 'SchedulerJob'"
            before = connection.execute(newest).fetchone()
            # The UI reads task logs from the disk; the log server would listen on all interfaces.
            self.start("scheduler", [sys.executable, "-m", "airflow", "scheduler", "--skip-serve-logs"])
            if airflow.MAJOR > 2:
                self.start("dag-processor", [sys.executable, "-m", "airflow", "dag-processor"])
                self.start("triggerer", [sys.executable, "-m", "airflow", "triggerer", "--skip-serve-logs"])
            self._until(
                "the scheduler's first heartbeat", 60, lambda: connection.execute(newest).fetchone() != before
            )

    def start_webserver(self) -> str:
        """Start Airflow's web server, which Airflow 3's tasks need, and wait until it answers; its URL."""
        # Their names hold the pid of a server that was killed; a new one would refuse to start.
        for left_over in airflow.airflow_home(self.state).glob("airflow-webserver*.pid"):
            left_over.unlink()
        port = airflow.web_port(self.state)
        self.start("webserver", [sys.executable, "-m", "airflow", _WEB_SERVER])
        self._until("the web server's answer", 120, lambda: _healthy(port))
        return self.web_url

    @property
    def web_url(self) -> str:
        """Where the web server answers, once it has been started."""
        return airflow.web_url(airflow.web_port(self.state))

    def airflow(self, *arguments: str) -> str:
        """Run an Airflow command, `stack.airflow("dags", "list")`; its standard output.

        Raises StandaloneError with the command's last line when it fails.
        """
        return self.run("-m", "airflow", *arguments)

    def run(self, *arguments: str) -> str:
        """Run this Python with `arguments` in the stack's environment; its standard output.

        Raises StandaloneError with the command's last line when it fails.
        """
        try:
            return airflow.run(self.environment, *arguments)
        except StandaloneError:
            self.check()  # a process that has ended explains more than the command that missed it
            raise

    # Watching -----------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise StandaloneError, with the end of its log, when one of the processes has ended."""
        for started in self._started:
            code = started.child.poll()
            if code is not None:
                how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
                raise StandaloneError(
                    f"{started.name} ended ({how}); {started.log} ends with\n{started.tail()}"
                )
        if self._database_used and not self.postgres.running():
            raise StandaloneError(f"PostgreSQL ended: see {self.postgres.log}")

    def wait(self) -> None:
        """Wait until a signal arrives (KeyboardInterrupt, Stopped) or a process ends (StandaloneError)."""
        while True:
            self.check()
            time.sleep(0.5)

    def _until(self, what: str, timeout: float, probe: Callable[[], Found | None]) -> Found:
        """The first true answer of `probe`, asked again and again."""
        deadline = time.monotonic() + timeout
        while not (found := probe()):
            self.check()
            if time.monotonic() > deadline:
                last = self._started[-1]
                raise StandaloneError(
                    f"waited {timeout:.0f} s in vain for {what}; {last.log} ends with\n{last.tail()}"
                )
            time.sleep(0.1)
        return found

    # Ending -------------------------------------------------------------------------------------------

    def _end(self, mark: str, patience: float) -> None:
        """End every process that carries `mark`: asked first, forced after `patience` seconds."""
        begun = time.monotonic()
        # Those we started end their children in order. The scheduler, though, waits for running tasks:
        # these are asked after two seconds, and Airflow will retry them.
        own = {started.child.pid for started in self._started}
        for started in self._started:
            started.child.terminate()
        asked: set[psutil.Process] = set()
        while True:
            marked = [process for process in processes.marked(mark) if process.pid not in own]
            # Our own also where they have put off the mark, with an environment of their own.
            children = [started.child for started in self._started if started.child.poll() is None]
            if not marked and not children:
                return
            passed = time.monotonic() - begun
            for process in marked if passed > 2 or not own else ():
                if process not in asked:
                    _send(process, signal.SIGTERM)
                    asked.add(process)
            if passed > patience:
                for process in marked:
                    _send(process, signal.SIGKILL)
                for child in children:
                    child.kill()
            time.sleep(0.05)

    def _write_record(self, *, over: bool = False) -> None:
        record = Record(
            None if over else os.getpid(),
            self._token,
            self.market_database,
            self.metadata_database,
            {} if over else self._exported,
        )
        write_private(_record_file(self.state), json.dumps(asdict(record)))


def read_record(state: Path) -> Record | None:
    """The last stack of this installation, running or not; None when there was none."""
    path = _record_file(state)
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    return Record(**{field.name: content.get(field.name) for field in fields(Record)})


def is_running(state: Path) -> bool:
    """Whether a stack of this installation is running now."""
    return _lock_file(state).exists() and is_locked(_lock_file(state))


def _record_file(state: Path) -> Path:
    return state / "stack.json"


def _lock_file(state: Path) -> Path:
    return state / "stack_lock"


def _send(process: psutil.Process, number: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _raise_stopped(number: int, _: FrameType | None) -> None:
    raise Stopped(number)


def _healthy(port: int) -> bool:
    with (
        suppress(OSError, http.client.HTTPException),
        closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection,
    ):
        connection.request("GET", _HEALTH)
        return connection.getresponse().status == 200
    return False
