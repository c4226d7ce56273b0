"""A real installation for the tests of runs: PostgreSQL, the market simulator, Airflow's own scheduler."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from running_installation import SYMBOLS, Installation, Shell, installed

from include.standalone.demo import parsed

# Two schedulers at a time look for work here, on two cores: at the installation's own pace that takes half a
# core of them, at this one a fifth.
os.environ["AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME"] = "0.5"


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory, new_state: Callable[[], Path]
) -> Iterator[Installation]:
    """Three symbols, empty databases and a scheduler; every DAG is paused. It ends with the module."""
    with installed(new_state(), tmp_path_factory.mktemp("configuration"), SYMBOLS) as there:
        there.stack.start_scheduler()
        there.until("the scheduler to parse the DAGs", lambda: parsed(there.metadata))
        yield there


@pytest.fixture(scope="module")
def shell(installation: Installation) -> Shell:
    return Shell(installation.stack.state)
