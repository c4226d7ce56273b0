"""What the tests of the monitor share: an instant, and rows planted around it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from include.mltrading.configuration.deployments import Deployments, load_deployments
from include.mltrading.features.definitions import FEATURE_VERSION
from include.mltrading.market.calendar import bars_of, last_sessions
from include.mltrading.monitor.figures import Part
from include.mltrading.monitor.snapshot import snapshot
from include.mltrading.store.connection import Connection

ONDEMAND = "complete-data-and-features-ondemand"
COLLECTION = "yahoo-production-data-collection"
FEATURES = "feature-engineering-production-subprocess"
# A Wednesday, 15:45 in New York: the bar of 14:30 there (18:30 UTC) has ended, that of 15:30 runs.
NOW = datetime(2026, 3, 11, 19, 45, tzinfo=UTC)
EXPECTED = datetime(2026, 3, 11, 18, 30, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
# The exchange's bars of ten sessions that have ended, oldest first.
DUE = [start for day in last_sessions(10, NOW) for start, end in bars_of(day) if end <= NOW]


@pytest.fixture
def deployments() -> Deployments:
    return load_deployments()


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    with psycopg.connect(database, autocommit=True) as opened:
        yield opened


def plant_bars(connection: Connection, symbol: str, starts: list[datetime], final: bool = True) -> None:
    connection.cursor().executemany(
        "INSERT INTO market_data (symbol, timestamp, open, high, low, close, volume, is_final, source)"
        " VALUES (%s, %s, 1, 2, 0.5, 1.5, 100, %s, 'simulated')",
        [(symbol, start, final) for start in starts],
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
    at: datetime = NOW,
    seconds: float = 30,
    rows: int | None = None,
    cpu: float | None = None,
    memory: int | None = None,
) -> None:
    connection.execute(
        "INSERT INTO processing_history (dag_id, run_id, step, symbol, try, correlation_id, window_end,"
        " started_at, finished_at, status, rows_written, cpu_seconds, peak_memory_bytes)"
        " VALUES (%s, %s, %s, %s, %s, 'c', %s, %s, %s, %s, %s, %s, %s)",
        (
            dag_id, run_id, step, symbol, number, tick, at,
            None if status == "running" else at + timedelta(seconds=seconds), status, rows, cpu, memory,
        ),
    )  # fmt: skip


def look(connection: Connection, symbols: list[str], *parts: Part, now: datetime = NOW) -> Any:
    """The one part that was asked for."""
    found = snapshot(connection, load_deployments(), symbols, now, parts)
    return getattr(found, parts[0])
