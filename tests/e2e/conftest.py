"""A real installation for the tests of runs: PostgreSQL, the market simulator, Airflow's own scheduler."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from alarmed import SYMBOLS, Alarmed, alarmed

# Two schedulers at a time look for work here, on two cores: at the installation's own pace that takes half a
# core of them, at this one a fifth.
os.environ["AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME"] = "0.5"


@pytest.fixture(scope="session")
def installation(
    tmp_path_factory: pytest.TempPathFactory, new_state: Callable[[], Path]
) -> Iterator[Alarmed]:
    """Two symbols, each a task, empty databases and a scheduler; every DAG is paused."""
    folder = tmp_path_factory.mktemp("configuration")
    with alarmed(new_state(), folder, symbols=SYMBOLS, in_a_task=1, scheduled=True) as there:
        yield there
