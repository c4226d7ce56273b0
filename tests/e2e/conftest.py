"""A real installation for the tests of runs: PostgreSQL, the market simulator, Airflow's own scheduler."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psycopg
import pytest
from running_installation import SYMBOLS, Installation, Shell, write_deployments

from include.market_simulator import MarketSimulator
from include.standalone.demo import parsed
from include.standalone.runs import connect_metadata
from include.standalone.stack import Stack

# Two schedulers at a time look for work here, on two cores: at the installation's own pace that takes half a
# core of them, at this one a fifth.
os.environ["AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME"] = "0.5"


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Three symbols, empty databases and a scheduler; every DAG is paused. It ends with the module.

    Unlike a real one it does not try again (tests of failures would wait for minutes), its gate looks
    every two seconds, and two of three symbols are enough.
    """
    folder = tmp_path_factory.mktemp("configuration")
    symbols_file = folder / "symbols.txt"
    symbols_file.write_text("\n".join(SYMBOLS) + "\n")
    deployments_file = write_deployments(
        folder / "deployments.yaml", retries=0, gate_poke_seconds=2, minimum_good_share=0.6
    )
    with (
        MarketSimulator() as simulator,
        Stack(tmp_path_factory.mktemp("installation"), report=lambda line: None) as stack,
    ):
        stack.start_database()
        stack.export("MLTRADING_YAHOO_URL", simulator.url)
        stack.export("MLTRADING_YAHOO_REQUESTS_PER_SECOND", "100")
        stack.export("MLTRADING_SYMBOLS_FILE", str(symbols_file))
        stack.export("MLTRADING_DEPLOYMENTS_FILE", str(deployments_file))
        stack.run("-m", "include.mltrading", "migrate")
        stack.start_scheduler()
        with (
            connect_metadata(stack) as metadata,
            psycopg.connect(stack.environment["MLTRADING_DATABASE_URL"], autocommit=True) as market,
        ):
            there = Installation(stack, simulator, metadata, market)
            there.until("the scheduler to parse the DAGs", lambda: parsed(metadata))
            yield there
            there.close()


@pytest.fixture(scope="module")
def shell(installation: Installation) -> Shell:
    return Shell(installation.stack.state)
