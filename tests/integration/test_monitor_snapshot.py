"""The monitor's snapshot says what the planted rows say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from include.mltrading.config import Deployments, load_deployments
from include.mltrading.errors import SchemaError
from include.mltrading.features.definitions import FEATURE_VERSION
from include.mltrading.monitor.snapshot import snapshot
from include.mltrading.store.connection import Connection

pytestmark = pytest.mark.integration

ONDEMAND = "complete-data-and-features-ondemand"
COLLECTION = "yahoo-production-data-collection"
FEATURES = "feature-engineering-production-subprocess"
# A Wednesday, 15:45 in New York: the bar of 14:30 there (18:30 UTC) has ended, that of 15:30 runs.
NOW = datetime(2026, 3, 11, 19, 45, tzinfo=UTC)
EXPECTED = datetime(2026, 3, 11, 18, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def deployments() -> Deployments:
    return load_deployments()


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    with psycopg.connect(database, autocommit=True) as opened:
        yield opened


def plant_bars(connection: Connection, symbol: str, newest: datetime, count: int, final: bool = True) -> None:
    connection.cursor().executemany(
        "INSERT INTO market_data (symbol, timestamp, open, high, low, close, volume, is_final, source)"
        " VALUES (%s, %s, 1, 1, 1, 1, 1, %s, 'simulated')",
        [(symbol, newest - index * HOUR, final) for index in range(count)],
    )


def plant_state(
    connection: Connection, symbol: str, stale_from: datetime | None, version: str = FEATURE_VERSION
) -> None:
    connection.execute(
        "INSERT INTO symbol_state (symbol, stale_from, feature_version) VALUES (%s, %s, %s)",
        (symbol, stale_from, version),
    )


def plant_try(
    connection: Connection,
    run_id: str,
    symbol: str,
    status: str,
    *,
    dag_id: str = COLLECTION,
    step: str = "collect_symbol",
    number: int = 1,
    tick: datetime = NOW,
    minute: int = 0,
    rows: int | None = None,
) -> None:
    started = NOW + timedelta(minutes=minute)
    connection.execute(
        "INSERT INTO processing_history (dag_id, run_id, step, symbol, try, correlation_id, window_end,"
        " started_at, finished_at, status, rows_written)"
        " VALUES (%s, %s, %s, %s, %s, 'c', %s, %s, %s, %s, %s)",
        (
            dag_id, run_id, step, symbol, number, tick, started,
            None if status == "running" else started + timedelta(seconds=30), status, rows,
        ),
    )  # fmt: skip


def test_freshness_is_counted_in_the_exchanges_bars(connection: Connection, deployments: Deployments) -> None:
    plant_bars(connection, "FRESH", EXPECTED, 3)
    plant_bars(connection, "LATE", EXPECTED - 2 * HOUR, 1)
    plant_bars(connection, "STALE", EXPECTED - 3 * HOUR, 1)
    # From Friday's last bar to Wednesday's expected one: 7 + 7 + 6 bars; the weekend has none.
    plant_bars(connection, "OLD", datetime(2026, 3, 6, 20, 30, tzinfo=UTC), 1)
    plant_bars(connection, "OLD", EXPECTED, 1, final=False)

    found = snapshot(connection, deployments, ["FRESH", "LATE", "STALE", "OLD", "NONE"], NOW)

    assert found.expected_bar == EXPECTED
    states = {s.symbol: (s.newest_bar, s.bars_behind, s.freshness) for s in found.symbols}
    assert states == {
        "FRESH": (EXPECTED, 0, "fresh"),
        "LATE": (EXPECTED - 2 * HOUR, 2, "late"),
        "STALE": (EXPECTED - 3 * HOUR, 3, "stale"),
        "OLD": (datetime(2026, 3, 6, 20, 30, tzinfo=UTC), 20, "stale"),
        "NONE": (None, None, "empty"),
    }
    totals = {"symbols": 5, "fresh": 1, "late": 1, "stale": 2, "empty": 1, "features_behind": 4}
    assert found.totals == totals


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        # Sunday: Friday's last bar, which starts at 15:30 in New York.
        ("2026-03-08T12:00", "2026-03-06T20:30"),
        # Before the first bar of the day has ended: the last of the day before.
        ("2026-03-11T14:29", "2026-03-10T19:30"),
        ("2026-03-11T14:30", "2026-03-11T13:30"),
        # The half day after Thanksgiving ends at 13:00 in New York, with half a bar.
        ("2026-11-27T23:00", "2026-11-27T17:30"),
    ],
)
def test_the_expected_bar_follows_the_exchanges_calendar(
    connection: Connection, deployments: Deployments, now: str, expected: str
) -> None:
    found = snapshot(connection, deployments, ["AAPL"], datetime.fromisoformat(f"{now}+00:00"))

    assert found.expected_bar == datetime.fromisoformat(f"{expected}+00:00")


def test_features_are_behind_by_the_final_bars_that_are_stale(
    connection: Connection, deployments: Deployments
) -> None:
    for symbol in ("DONE", "PART", "OLDER", "NEW"):
        plant_bars(connection, symbol, EXPECTED, 5)
    plant_bars(connection, "PART", EXPECTED + HOUR, 1, final=False)
    plant_state(connection, "DONE", None)
    plant_state(connection, "PART", EXPECTED - HOUR)
    plant_state(connection, "OLDER", None, version="0")

    found = snapshot(connection, deployments, ["DONE", "PART", "OLDER", "NEW"], NOW)

    behind = {symbol.symbol: symbol.features_behind for symbol in found.symbols}
    assert behind == {"DONE": 0, "PART": 2, "OLDER": 5, "NEW": 5}


def test_the_last_run_is_the_one_with_the_latest_tick_and_counts_each_symbols_latest_try(
    connection: Connection, deployments: Deployments
) -> None:
    # A backfill of the past, started later, does not count as the last run.
    plant_try(connection, "backfill", "AAPL", "error", tick=NOW - timedelta(days=9), minute=60)
    plant_try(connection, "run", "AAPL", "ok", rows=21)
    plant_try(connection, "run", "MSFT", "error", minute=1)
    plant_try(connection, "run", "MSFT", "ok", number=2, minute=4, rows=7)
    plant_try(connection, "run", "TSLA", "timeout", minute=2)
    plant_try(connection, "load", "AAPL", "ok", dag_id=ONDEMAND, rows=1750)
    plant_try(connection, "load", "AAPL", "running", dag_id=ONDEMAND, step="compute_features", minute=5)

    found = snapshot(connection, deployments, ["AAPL"], NOW)

    assert [pipeline.dag_id for pipeline in found.pipelines] == [ONDEMAND, FEATURES, COLLECTION]
    load, features, collection = (pipeline.last_run for pipeline in found.pipelines)
    assert features is None
    assert collection is not None
    assert (collection.run_id, collection.tick) == ("run", NOW)
    (step,) = collection.steps
    assert (step.served, step.failed, step.running, step.rows_written) == (2, 1, 0, 28)
    assert (step.started_at, step.finished_at) == (NOW, NOW + timedelta(minutes=4, seconds=30))
    assert load is not None
    assert [(step.step, step.running, step.finished_at is None) for step in load.steps] == [
        ("collect_symbol", 0, False),
        ("compute_features", 1, True),
    ]


def test_the_snapshot_is_json_with_its_instant_and_the_kind_of_data(
    connection: Connection, deployments: Deployments
) -> None:
    plant_bars(connection, "AAPL", EXPECTED, 1)
    connection.execute("INSERT INTO data_source (source) VALUES ('simulated')")

    document = json.loads(json.dumps(snapshot(connection, deployments, ["AAPL"], NOW).as_document()))

    assert (document["as_of"], document["source"]) == (NOW.isoformat(), "simulated")
    assert document["symbols"][0]["newest_bar"] == EXPECTED.isoformat()


def test_an_empty_database_is_empty_until_something_was_tried(
    connection: Connection, deployments: Deployments
) -> None:
    assert snapshot(connection, deployments, ["AAPL"], NOW).empty
    plant_try(connection, "run", "AAPL", "error")
    assert not snapshot(connection, deployments, ["AAPL"], NOW).empty


def test_a_database_without_a_schema_is_named_so(empty_database: str, deployments: Deployments) -> None:
    with (
        psycopg.connect(empty_database, autocommit=True) as connection,
        pytest.raises(SchemaError, match=r"no schema yet.* migrate"),
    ):
        snapshot(connection, deployments, ["AAPL"], NOW)
