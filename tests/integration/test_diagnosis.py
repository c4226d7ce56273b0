"""`check` on a year of six symbols: every diagnostic of the guide, in words and as JSON."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from include.mltrading.configuration.settings import Settings
from tests.integration.year_of_bars import NAMES
from tests.integration.year_of_bars import year as year
from tests.integration.year_of_bars import year_template as year_template

pytestmark = pytest.mark.integration

Cli = Callable[..., Any]
NOW = datetime.now(UTC)
COLLECTION = "yahoo-production-data-collection"


@pytest.fixture
def environment(year: str, tmp_path: Path) -> dict[str, str]:
    file = tmp_path / "symbols.txt"
    file.write_text("\n".join(NAMES))
    return {"MLTRADING_DATABASE_URL": year, "MLTRADING_SYMBOLS_FILE": str(file)}


def tried(
    url: str, run_id: str, symbol: str, status: str, *, hours_ago: float, seconds: int = 60, number: int = 1
) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO processing_history (dag_id, run_id, step, symbol, try, correlation_id, window_end,"
            " started_at, finished_at, status, rows_written)"
            " SELECT %s, %s, 'collect_symbol', %s, %s, 'c', at, at,"
            " CASE WHEN %s <> 'running' THEN at + make_interval(secs => %s) END, %s, 21"
            " FROM CAST(%s AS timestamptz) AS at",
            (COLLECTION, run_id, symbol, number, status, seconds, status, NOW - timedelta(hours=hours_ago)),
        )


def line(out: str, heading: str) -> str:
    [found] = [text for text in out.splitlines() if text.startswith(f"{heading} ")]
    return found


def test_connections_resources_pipelines_and_growth_are_told(
    cli: Cli, environment: dict[str, str], year: str
) -> None:
    for symbol in NAMES[:4]:
        tried(year, "scheduled", symbol, "ok", hours_ago=2, seconds=1000)
    tried(year, "scheduled", NAMES[5], "error", hours_ago=2)
    document = cli("check", "--json", **environment).document
    with psycopg.connect(year) as connection:
        [limit] = connection.execute(
            "SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user"
        ).fetchone() or (0,)
        [size] = connection.execute("SELECT pg_database_size(current_database())").fetchone() or (0,)
    system = document["system"]
    assert 1 <= system["connections"] <= system["connections_limit"] == limit == 25
    assert system["database_bytes"] == pytest.approx(size, rel=0.05)
    assert 0 < system["memory"]["free"] < system["memory"]["total"]
    assert system["disks"][0]["free"] < system["disks"][0]["total"]
    assert {"step": "collect_symbol", "day": 5 * 21, "week": 5 * 21} in system["growth"]
    [pipeline] = [item for item in document["pipelines"] if item["dag_id"] == COLLECTION]
    assert pipeline["last_run"]["state"] == "failed"
    assert pipeline["week"]["share"] == pytest.approx(4 / 5)
    # What was told before still is.
    assert document["symbols"] == len(NAMES)
    assert document["query_milliseconds"].keys() == {"latest_bar", "recent_features", "latest_bar_by_symbol"}

    out = cli("check", **environment).out
    assert "4 served, 1 failed, 1000 of 480 s; 80.0% served in 7 days  <-- beyond its threshold" in out
    assert line(out, "connections").split()[2:4] == ["of", "25"]
    assert line(out, "memory").endswith("GB free") or "<--" in line(out, "memory")
    assert "market_data" in line(out, "database size")
    assert line(out, "growth").endswith("collect_symbol 105, 105; compute_features 0, 0")


def test_tries_left_running_by_a_killed_process_are_told_and_live_ones_are_not(
    cli: Cli, environment: dict[str, str], year: str
) -> None:
    assert line(cli("check", **environment).out, "ledger").endswith("by a process that was killed")
    tried(year, "killed", "Y001", "running", hours_ago=5)
    tried(year, "killed", "Y002", "running", hours_ago=5)
    tried(year, "killed", "Y002", "ok", hours_ago=4, number=2)  # tried again since
    tried(year, "now", "Y003", "running", hours_ago=0.5)
    left = cli("check", "--json", **environment).document["left_running"]
    assert [(item["run_id"], item["symbol"]) for item in left] == [("killed", "Y001")]
    told = line(cli("check", **environment).out, "ledger")
    assert "1 tries left running" in told
    assert "Y001 (collect_symbol, killed)" in told
    # A batch of 60 symbols may be at work for four hours and more.
    batches = cli("check", "--json", **environment, MLTRADING_SYMBOLS_PER_TASK="90")
    assert batches.document["left_running"] == []


def test_what_is_beyond_its_threshold_is_marked(
    cli: Cli, environment: dict[str, str], tmp_path: Path
) -> None:
    content = yaml.safe_load(Settings().deployments_file.read_text())
    content["alerts"]["thresholds"].update(connections_share=0.01, memory_free_share=1, disk_free_share=1)
    path = tmp_path / "deployments.yaml"
    path.write_text(yaml.safe_dump(content))
    out = cli("check", **environment, MLTRADING_DEPLOYMENTS_FILE=str(path)).out
    for heading in ("connections", "memory", "disk"):
        assert line(out, heading).endswith("<-- beyond its threshold")
