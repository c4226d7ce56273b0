"""`make shell`: a shell in which airflow, psql and the command line work."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys

from include.standalone import airflow
from include.standalone.postgres import EmbeddedPostgres
from include.standalone.stack import is_running, read_record
from include.standalone.state import PROJECT, state_folder


def main(arguments: list[str]) -> int:
    """Start the database and the shell, with the environment of the last run; the shell's exit code."""
    parser = argparse.ArgumentParser(prog="make shell", description=__doc__)
    parser.add_argument("--command", metavar="TEXT", help="run this and end")
    parser.add_argument("--database", metavar="NAME", help="market database (default: the last run's)")
    options = parser.parse_args(arguments)
    record = read_record(state_folder())
    market = options.database or (record.market_database if record else airflow.MARKET_DATABASE)
    metadata = record.metadata_database if record else airflow.METADATA_DATABASE
    with EmbeddedPostgres(report=_note) as server:
        env = airflow.ensure_databases(server, market_database=market, metadata_database=metadata)
        if record is not None and is_running(server.state):
            env |= record.exported
        airflow.prepare_airflow(env, _note)
        if options.command is not None:
            command = ["/bin/sh", "-c", options.command]
        elif sys.stdin.isatty():
            _note(f"market database {market}; `airflow`, `psql $MLTRADING_DATABASE_URL` and")
            _note("`python -m include.mltrading` work here; `exit` leaves")
            command = [os.environ.get("SHELL") or "/bin/sh"]
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


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
