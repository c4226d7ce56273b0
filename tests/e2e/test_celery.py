"""CeleryExecutor without containers: Redis and two workers, one of them killed in mid-run."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from airflow_lanes import on_2
from redis_server import needs_redis
from running_installation import Installation, tick_of, write_deployments

from include.market_simulator import MarketSimulator
from include.standalone.demo import COLLECTION, FEATURES, LOAD, parsed
from include.standalone.runs import connect_metadata
from include.standalone.stack import Stack, Started
from include.standalone.state import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.exhaustive, needs_redis, on_2]

SYMBOLS = ["AAPL", "IBM"]
RATE = 1


@dataclass
class Cluster:
    """An installation and its workers."""

    there: Installation
    workers: list[Started]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, new_state: Callable[[], Path]) -> Iterator[Cluster]:
    """Two symbols, a scheduler with CeleryExecutor and two workers with home folders of their own."""
    folder = tmp_path_factory.mktemp("celery")
    symbols_file = folder / "symbols.txt"
    symbols_file.write_text("\n".join(SYMBOLS) + "\n")
    deployments_file = write_deployments(
        folder / "deployments.yaml", retries=2, retry_delay_seconds=1, gate_poke_seconds=2
    )
    password, port = secrets.token_hex(16), free_port()
    configuration = folder / "redis.conf"
    configuration.write_text(f'bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir {folder}\nsave ""\n')
    with (
        MarketSimulator() as simulator,
        Stack(new_state(), report=lambda line: None) as stack,
    ):
        for name, value in {
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CELERY__BROKER_URL": f"redis://:{password}@127.0.0.1:{port}/0",
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": "2",
            "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "60",
            "AIRFLOW__SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": "10",
            "AIRFLOW__SCHEDULER__ZOMBIE_DETECTION_INTERVAL": "2",
            "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "600",
            "MLTRADING_YAHOO_URL": simulator.url,
            "MLTRADING_YAHOO_REQUESTS_PER_SECOND": str(RATE),
            "MLTRADING_SYMBOLS_FILE": str(symbols_file),
            "MLTRADING_DEPLOYMENTS_FILE": str(deployments_file),
        }.items():
            stack.export(name, value)
        stack.start_database()
        stack.start("redis", ["redis-server", str(configuration)])
        workers = [start_worker(stack, folder, number) for number in (1, 2)]
        stack.start_scheduler()
        with (
            connect_metadata(stack) as metadata,
            psycopg.connect(stack.environment["MLTRADING_DATABASE_URL"], autocommit=True) as market,
        ):
            there = Installation(stack, simulator, metadata, market, scheduled=True)
            there.until("the scheduler to parse the DAGs", lambda: parsed(metadata))
            for dag_id in (COLLECTION, FEATURES):
                there.ask_airflow("occupy", dag_id, 3)
            for dag_id in (LOAD, COLLECTION, FEATURES):
                there.pause(dag_id, False)
            there.until(
                "both workers to be ready", lambda: all(" ready." in each.log.read_text() for each in workers)
            )
            yield Cluster(there, workers)
            there.close()


def start_worker(stack: Stack, folder: Path, number: int) -> Started:
    home = folder / f"worker{number}"
    home.mkdir()
    command = [sys.executable, "-m", "airflow", "celery", "worker", "--skip-serve-logs"]
    return stack.start(
        f"worker{number}",
        [*command, "--celery-hostname", f"worker{number}@%h", "--pid", str(home / "worker.pid")],
        {"AIRFLOW_HOME": str(home)},
    )


def test_the_three_dags_run_through_both_workers_at_the_common_rate(cluster: Cluster) -> None:
    there = cluster.there
    load = there.trigger("celery", period="1mo")
    collection, features = there.run_tick(there.next_day())
    assert (load.state, collection.state, features.state) == ("success", "success", "success")
    # Both took part, and neither went beyond what all processes may ask together.
    assert all("succeeded in" in worker.log.read_text() for worker in cluster.workers)
    assert there.simulator.statistics()["peak_per_second"] <= RATE + 1
    for run in (load, collection):
        assert {row[3] for row in there.ledger(run)} == {"ok"}


def test_a_symbols_lock_holds_across_the_workers(cluster: Cluster) -> None:
    there, day = cluster.there, cluster.there.next_day()
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with there.held(*SYMBOLS):
        # Two runs of two symbols have four tasks, the workers four slots: both workers' are held up.
        load, tick = "held", there.plant(COLLECTION, tick_of(day))
        there.start(LOAD, load, period="1mo")
        there.until(
            "every slot of both workers to wait",
            lambda: (there.market.execute(waiting).fetchone() or (0,))[0] == 2 * len(cluster.workers),
        )
        assert not there.market.execute(
            "SELECT 1 FROM processing_history WHERE run_id = ANY (%s) AND status <> 'running'",
            ([load, tick],),
        ).fetchone()
    assert there.ended(LOAD, load).state == "success"
    assert there.ended(COLLECTION, tick).state == "success"


def test_a_run_completes_though_a_worker_is_killed(cluster: Cluster) -> None:
    there, day = cluster.there, cluster.there.next_day()
    underway = "SELECT 1 FROM processing_history WHERE run_id = %s AND status = 'running'"
    with there.fault("slow", *SYMBOLS, seconds=8):
        run_id = there.plant(COLLECTION, tick_of(day))
        there.until("fetches", lambda: there.market.execute(underway, (run_id,)).fetchone())
        victim = cluster.workers.pop()
        there.stack._started.remove(victim)
        os.killpg(victim.child.pid, signal.SIGKILL)
        victim.child.wait()
    assert there.ended(COLLECTION, run_id).state == "success"
    served = there.market.execute(
        "SELECT DISTINCT symbol FROM processing_history"
        " WHERE run_id = %s AND step = 'collect_symbol' AND status = 'ok' ORDER BY symbol",
        (run_id,),
    ).fetchall()
    assert [row[0] for row in served] == SYMBOLS
    assert there.ended(FEATURES, there.plant(FEATURES, tick_of(day, FEATURES))).state == "success"
