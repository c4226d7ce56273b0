"""The README's first command, as a stranger types it on a machine that has never seen the project."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from include.mltrading.configuration.settings import PROJECT_ROOT
from include.mltrading.features.definitions import FEATURES
from include.standalone import airflow, processes
from include.standalone.demo import COLLECTION, LOAD, MARKET_DATABASE
from include.standalone.demo import FEATURES as FEATURES_DAG
from include.standalone.postgres import EmbeddedPostgres

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state folder of a new installation."""
    folder = tmp_path_factory.mktemp("demo") / "state"
    yield folder
    EmbeddedPostgres(folder, report=lambda line: None).remove()


@contextmanager
def demo(state: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`make demo` of two symbols, its output to be read; ended, if it still runs, when the block is left."""
    with subprocess.Popen(
        [sys.executable, "-m", "include.standalone", "demo", "--symbols", "2", *options],
        cwd=PROJECT_ROOT,
        # Each process of the web server loads all of Airflow.
        env={**os.environ, "MLTRADING_STATE_DIR": str(state), "AIRFLOW__WEBSERVER__WORKERS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def test_the_demo_runs_the_three_dags_and_leaves_nothing_running(state: Path) -> None:
    with demo(state, "--once") as process:
        told, _ = process.communicate(timeout=900)
    assert process.returncode == 0, told
    for dag_id in (LOAD, COLLECTION, FEATURES_DAG):
        assert re.search(rf"^{dag_id} +\S.* success +\d+ +\d+$", told, re.MULTILINE), told
    assert f"http://127.0.0.1:{airflow.web_port(state)}" in told
    assert airflow.admin_password(state) in told
    assert list(processes.marked(f"MLTRADING_STATE_DIR={state}")) == []
    for port in (airflow.web_port(state), EmbeddedPostgres(state).port):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_what_it_stored_is_a_year_of_bars_and_a_feature_row_for_each_final_one(state: Path) -> None:
    with (
        EmbeddedPostgres(state, report=lambda line: None) as server,
        psycopg.connect(server.url(MARKET_DATABASE)) as connection,
    ):
        bars = connection.execute(
            "SELECT symbol, count(*) FILTER (WHERE is_final), array_agg(DISTINCT source) FROM market_data "
            "GROUP BY symbol"
        ).fetchall()
        assert len(bars) == 2
        for symbol, final, sources in bars:
            assert 1700 < final < 1800
            assert sources == ["simulated"]
            served = connection.execute(
                "SELECT count(*) FROM market_data JOIN feature_engineered_data USING (symbol, timestamp) "
                "WHERE symbol = %s AND is_final",
                (symbol,),
            ).fetchone()
            assert served == (final,)
            for feature in FEATURES:
                undefined = connection.execute(
                    f"SELECT count(*) FROM feature_engineered_data "  # noqa: S608 - our own column names
                    f"WHERE symbol = %s AND {feature.column} IS NULL",
                    (symbol,),
                ).fetchone()
                assert undefined == (feature.first_bar,), feature.column


def test_a_second_demo_goes_on_with_what_the_first_has_stored(state: Path) -> None:
    with EmbeddedPostgres(state, report=lambda line: None) as server:
        url = server.url(MARKET_DATABASE)
        with psycopg.connect(url) as connection:
            before = connection.execute("SELECT min(created_at) FROM market_data").fetchone()
        told = ""
        with demo(state) as process:
            for line in process.stdout or ():
                told += line
                if line.startswith("The Airflow UI is at "):
                    process.terminate()
        assert process.returncode == 128 + signal.SIGTERM, told
        assert "creating the PostgreSQL data folder" not in told
        assert "preparing Airflow's metadata database" not in told
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT min(created_at) FROM market_data").fetchone() == before
