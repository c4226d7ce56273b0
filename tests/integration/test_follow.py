"""The work of a task ends with what stands between it and Airflow, also while its vendor does not answer."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.mltrading.airflow.operator import _COMMAND
from include.mltrading.configuration.settings import PROJECT_ROOT
from include.mltrading.pipeline.linux import parent_of

pytestmark = pytest.mark.integration

# Stands for Airflow's task process: starts the operator's command in a session of its own, and waits for it.
AIRFLOW = """
import os, subprocess, sys
environment = {**os.environ, "MLTRADING_TASK_PROCESS": str(os.getpid())}
subprocess.Popen(["bash", "-c", sys.argv[1]], env=environment, start_new_session=True).wait()
"""


@pytest.fixture
def silent_vendor() -> Iterator[str]:
    """The URL of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def wait_for(found: Callable[[], object]) -> None:
    give_up = time.monotonic() + 60
    while not found():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def alive(mark: str) -> set[int]:
    """The processes with the mark in their environment; who has ended and was not reaped has none."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                found.add(int(path.parent.name))
        except OSError:
            continue  # gone, or another user's
    return found


@pytest.mark.parametrize(
    "killed", [("timeout",), ("airflow",), ("airflow", "timeout"), ("timeout", "airflow")], ids="+".join
)
def test_the_work_ends_with_whatever_stands_between_it_and_airflow(
    database: str, silent_vendor: str, killed: tuple[str, ...]
) -> None:
    mark = f"run-{uuid.uuid4().hex}"
    run = {
        "dag_id": "dag", "run_id": mark, "run_type": "manual", "try_number": 1,
        "window_end": "2026-01-21T16:00:00+00:00",
    }  # fmt: skip
    document = {"step": "collect_symbol", "symbols": ["AAPL"], "params": {"data_period": "3d"}, "run": run}
    environment = {
        **os.environ,
        "PYTHONPATH": str(PROJECT_ROOT),
        "MLTRADING_DATABASE_URL": database,
        "MLTRADING_YAHOO_URL": silent_vendor,
        "MLTRADING_PYTHON": sys.executable,
        "MLTRADING_TASK_SECONDS": "300",
        "MLTRADING_TASK": json.dumps(document),
    }
    with (
        psycopg.connect(database, autocommit=True) as connection,
        subprocess.Popen([sys.executable, "-c", AIRFLOW, _COMMAND], env=environment) as airflow,
    ):
        try:
            # The symbol's own process asks the vendor.
            wait_for(lambda: connection.execute("SELECT 1 FROM request_clock").fetchone())
            [timeout] = [pid for pid in alive(mark) if parent_of(pid) == airflow.pid]
            assert len(alive(mark)) == 4
            for name in killed:
                os.kill(airflow.pid if name == "airflow" else timeout, signal.SIGKILL)
            wait_for(lambda: not alive(mark))
        finally:
            for pid in alive(mark):
                os.kill(pid, signal.SIGKILL)
        assert connection.execute("SELECT status, error FROM processing_history").fetchall() == [
            ("cancelled", "the task was told to stop")
        ]


@pytest.mark.parametrize("gone", ["parent", "grandparent"])
def test_who_was_left_alone_before_it_could_listen_does_not_begin(cli: Callable[..., Any], gone: str) -> None:
    nobody = 2**22 + 1  # above the largest process id
    parents = [nobody] if gone == "parent" else [os.getpid(), nobody]
    finished = cli("task", MLTRADING_TASK_PARENTS=" ".join(map(str, parents)), MLTRADING_TASK="{}")
    assert (finished.code, finished.err) == (
        1,
        "error: the process that started this task is gone; Airflow starts it again\n",
    )
