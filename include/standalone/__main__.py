"""`python -m include.standalone …`: the bare-machine commands behind the Makefile.

Exit code 0 = done, 1 = something failed, 2 = bad usage; errors are one line on standard error.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from include.mltrading.errors import MLTradingError
from include.standalone import airflow
from include.standalone.postgres import EmbeddedPostgres
from include.standalone.stack import Stopped, read_record
from include.standalone.state import PROJECT, StandaloneError, state_folder

# A variable with one of these in its name may hold a secret, and is not printed.
_SECRET_WORDS = ("PASSWORD", "SECRET", "KEY", "TOKEN", "CONN", "DATABASE_URL", "PROXY")


def main(arguments: list[str]) -> int:
    """Run one command; its exit code."""
    # These have options of their own, in modules of their own.
    if arguments[:1] in (["demo"], ["run"], ["bench"], ["smoke-live"]):
        module = importlib.import_module(f"include.standalone.{arguments[0].replace('-', '_')}")
        return int(module.main(arguments[1:]))
    parser = argparse.ArgumentParser(
        prog="python -m include.standalone",
        description="Commands for a bare machine; demo, run, bench and smoke-live have their own --help.",
    )
    commands = parser.add_subparsers(
        dest="command",
        required=True,
        metavar="{demo,run,bench,smoke-live,postgres,shell,airflow-environment}",
    )
    postgres = commands.add_parser("postgres", help="the embedded PostgreSQL alone")
    postgres.add_argument("action", choices=["start", "stop", "url", "remove"])
    postgres.add_argument("database", nargs="?", help="for url: which database (default: the market's)")
    shell = commands.add_parser("shell", help="a shell in which airflow, psql and the command line work")
    shell.add_argument("--command", dest="text", metavar="TEXT", help="run this and end")
    shell.add_argument("--database", metavar="NAME", help="market database (default: the last run's)")
    commands.add_parser("airflow-environment", help="the variables Airflow runs with, without secrets")
    chosen = parser.parse_args(arguments)
    if chosen.command == "postgres":
        return _postgres(chosen.action, chosen.database)
    if chosen.command == "shell":
        return _shell(chosen.text, chosen.database)
    return _show_environment()


def _postgres(action: str, database: str | None) -> int:
    server = EmbeddedPostgres()
    if action == "start":
        server.start(keep=True)
        print(f"PostgreSQL listens on 127.0.0.1:{server.port}")
    elif action == "stop":
        server.shutdown()
    elif action == "remove":
        server.remove()
    elif server.port == 0:
        raise StandaloneError("the embedded PostgreSQL has never been started: run `make demo`")
    else:
        print(server.url(database or _databases(state_folder())[0]))
    return 0


def _databases(state: Path) -> tuple[str, str]:
    """The market and the metadata database of the last run here, the default ones when there was none."""
    record = read_record(state)
    if record is None:
        return airflow.MARKET_DATABASE, airflow.METADATA_DATABASE
    return record.market_database, record.metadata_database


def _shell(text: str | None, database: str | None) -> int:
    """A shell with the environment of the last run (and of the running one), the database started."""
    state = state_folder()
    market, metadata = _databases(state)
    market = database or market
    with EmbeddedPostgres(state, report=_note) as server:
        server.ensure_database(metadata)
        if airflow.foreign_database_url(server) is None:
            server.ensure_database(market, airflow.MARKET_CONNECTION_LIMIT)
            server.apply_roles(market)
        env = airflow.airflow_environment(state, server, market_database=market, metadata_database=metadata)
        record = read_record(state)
        if record is not None and record.process is not None and record.process.alive():
            env |= record.exported
        airflow.prepare_airflow(env, server, _note)
        shell = os.environ.get("SHELL") or "/bin/sh"
        if text is not None:
            command = ["/bin/sh", "-c", text]
        elif sys.stdin.isatty():
            _note(f"market database {market}; `airflow`, `psql $MLTRADING_DATABASE_URL` and")
            _note("`python -m include.mltrading` work here; `exit` leaves")
            command = [shell]
        else:
            command = ["/bin/sh"]
        return _foreground(command, env)


def _foreground(command: list[str], env: dict[str, str]) -> int:
    """Run `command` on this terminal to its end; its exit code as a shell counts it."""
    child = subprocess.Popen(command, env=env, cwd=PROJECT)  # noqa: S603 (the user's own command)
    # Ctrl-C belongs to the command on the terminal; a request to end is passed on to it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: child.send_signal(received))
    code = child.wait()
    return code if code >= 0 else 128 - code


def _show_environment() -> int:
    state = state_folder()
    market, metadata = _databases(state)
    server = EmbeddedPostgres(state, report=_note)
    if server.port == 0:
        raise StandaloneError("nothing has been started here yet: run `make demo` or `make shell`")
    env = airflow.airflow_environment(state, server, market_database=market, metadata_database=metadata)
    for key, value in sorted(env.items()):
        if key.startswith(("AIRFLOW", "MLTRADING_", "PYTHON", "GUNICORN_")) or key == "PATH":
            hidden = any(word in key for word in _SECRET_WORDS)
            print(f"{key}={'(hidden)' if hidden else value}")
    return 0


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except MLTradingError as error:
        _note(f"error: {error}")
        sys.exit(error.exit_code)
    except Stopped as stopped:
        sys.exit(stopped.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
