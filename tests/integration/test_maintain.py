"""The house-keeping on a year of bars: what goes, what stays, and what is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.standalone.postgres import EmbeddedPostgres
from tests.integration.year_of_bars import NAMES
from tests.integration.year_of_bars import year as year
from tests.integration.year_of_bars import year_template as year_template

pytestmark = pytest.mark.integration

Cli = Callable[..., Any]


@pytest.fixture
def environment(year: str, tmp_path: Path) -> dict[str, str]:
    # Whatever other tests have put into the shared home is not of this one.
    return {"MLTRADING_DATABASE_URL": year, "AIRFLOW_HOME": str(tmp_path / "no-airflow")}


def execute(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        cursor = connection.execute(statement, values)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []


def tried(url: str, run_id: str, step: str, symbols: list[str], days_ago: int) -> None:
    execute(
        url,
        "INSERT INTO processing_history (dag_id, run_id, step, symbol, try, correlation_id, window_end,"
        " started_at, finished_at, status)"
        " SELECT 'dag', %s, %s, symbol, 1, 'c', at, at, at, 'ok'"
        " FROM unnest(%s::text[]) AS symbol, CAST(now() - make_interval(days => %s) AS timestamptz) AS at",
        run_id, step, symbols, days_ago,
    )  # fmt: skip


def test_old_tries_go_but_for_the_last_one_of_each_symbol_and_step(
    cli: Cli, environment: dict[str, str], year: str
) -> None:
    execute(year, "DELETE FROM processing_history")
    for days_ago in (400, 200, 100, 91):
        tried(year, f"{days_ago} days ago", "collect_symbol", NAMES, days_ago)
    tried(year, "89 days ago", "collect_symbol", NAMES[:4], 89)
    tried(year, "300 days ago", "compute_features", NAMES[:3], 300)
    tried(year, "today", "compute_features", NAMES[3:5], 0)
    done = cli("maintain", "--json", **environment)
    assert done.code == 0, done.err
    assert done.document["pruned"] == 3 * len(NAMES) + 4
    kept = execute(
        year, "SELECT run_id, step, count(*) FROM processing_history GROUP BY 1, 2 ORDER BY step, run_id"
    )
    assert kept == [
        ("89 days ago", "collect_symbol", 4),
        ("91 days ago", "collect_symbol", 2),
        ("300 days ago", "compute_features", 3),
        ("today", "compute_features", 2),
    ]
    assert cli("maintain", "--json", **environment).document["pruned"] == 0
    assert cli("maintain", "--history-days", "14", "--json", **environment).document["pruned"] == 0


def test_too_few_days_are_refused(cli: Cli, environment: dict[str, str]) -> None:
    refused = cli("maintain", "--history-days", "3", **environment)
    assert (refused.code, refused.out) == (2, "")
    assert "--history-days 3" in refused.err


def test_sizes_growth_dead_rows_and_the_use_of_indexes_are_told(
    cli: Cli, environment: dict[str, str], year: str
) -> None:
    execute(year, "DELETE FROM feature_engineered_data WHERE symbol < 'Y003'")
    execute(year, "SELECT close FROM market_data WHERE symbol = 'Y004' ORDER BY timestamp DESC LIMIT 1")
    first = cli("maintain", "--json", **environment).document
    tables = {table["name"]: table for table in first["tables"]}
    assert tables["market_data"]["rows"] == execute(year, "SELECT count(*) FROM market_data")[0][0]
    assert tables["market_data"]["bytes"] > tables["market_data"]["table_bytes"] > 1_000_000
    assert tables["market_data"]["grown_rows"] is None
    assert all(table["vacuumed"] for table in tables.values())
    assert tables["feature_engineered_data"]["dead_rows"] == 0
    [(vacuumed, analyzed)] = execute(
        year,
        "SELECT last_vacuum IS NOT NULL, last_analyze IS NOT NULL FROM pg_stat_user_tables"
        " WHERE relname = 'feature_engineered_data'",
    )
    assert (vacuumed, analyzed) == (True, True)
    indexes = {index["name"]: index for index in first["indexes"]}
    assert indexes["market_data_pkey"]["scans"] > 0
    assert indexes["market_data_pkey"]["needed"]
    assert not indexes["market_data_timestamp"]["needed"]

    execute(year, "DELETE FROM market_data WHERE symbol = 'Y005'")
    [(gone,)] = execute(year, "SELECT count(*) FROM market_data WHERE symbol = 'Y002'")
    second = cli("maintain", "--json", **environment).document
    [grown] = [table["grown_rows"] for table in second["tables"] if table["name"] == "market_data"]
    assert grown == -gone
    text = cli("maintain", **environment).out
    assert "market_data_timestamp" in text
    assert "+0 rows since" in text


def test_a_table_that_is_in_use_or_of_another_role_is_passed_over_and_told(
    cli: Cli, environment: dict[str, str], year: str, postgres: EmbeddedPostgres
) -> None:
    admin_url = f"{postgres.url('postgres').rpartition('/')[0]}/{year.rpartition('/')[2]}"
    execute(admin_url, "CREATE TABLE somebody_elses (x int)")
    with psycopg.connect(year) as held:
        # What another vacuum holds.
        held.execute("LOCK TABLE corporate_actions IN SHARE UPDATE EXCLUSIVE MODE")
        done = cli("maintain", "--json", **environment)
    assert done.code == 0, done.err
    passed = {table["name"] for table in done.document["tables"] if not table["vacuumed"]}
    assert passed == {"somebody_elses", "corporate_actions"}


def test_without_an_airflow_that_part_is_skipped_in_one_line(cli: Cli, environment: dict[str, str]) -> None:
    lines = [line for line in cli("maintain", **environment).out.splitlines() if line.startswith("airflow")]
    assert lines == [
        "airflow   skipped: no Airflow is set up here (AIRFLOW__DATABASE__SQL_ALCHEMY_CONN is not set)"
    ]


def test_an_airflow_that_cannot_be_cleaned_fails_after_the_rest_is_done(
    cli: Cli, environment: dict[str, str], year: str
) -> None:
    tried(year, "old", "collect_symbol", NAMES, 200)
    tried(year, "new", "collect_symbol", NAMES, 1)
    done = cli(
        "maintain", **environment,
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="postgresql+psycopg2://nobody:only-here@127.0.0.1:9/none",
    )  # fmt: skip
    assert done.code == 1
    assert "airflow   FAILED with exit code" in done.out
    assert "only-here" not in done.out + done.err
    assert execute(year, "SELECT count(*) FROM processing_history WHERE run_id = 'old'") == [(0,)]


@pytest.mark.parametrize("days", ["800000", "1000000000"])
def test_more_days_than_a_calendar_has_are_refused(cli: Cli, days: str) -> None:
    done = cli("maintain", "--history-days", days, MLTRADING_DATABASE_URL="postgresql://127.0.0.1:1/none")
    assert done.code == 2
    assert done.err.startswith(f"error: --history-days {days}: give at least 14")
    assert "at most 36500" in done.err
