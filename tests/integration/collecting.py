"""What the tests of the collection share: one tick at a time with the vendor at that time, and the truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from include.market_simulator import MarketSimulator, bars
from include.mltrading.configuration.settings import Settings
from include.mltrading.market.calendar import NEW_YORK, grid
from include.mltrading.pipeline.batch import run_batch
from include.mltrading.pipeline.child import Limits
from include.mltrading.pipeline.collect import Collection
from include.mltrading.pipeline.run import Run
from include.mltrading.pipeline.runner import Outcome
from include.mltrading.pipeline.steps import COLLECT
from include.mltrading.pipeline.window import Window

SEED = 7
LIMITS = Limits(60, 30, 60, 448)
Row = tuple[Any, ...]
Collect = Callable[..., Outcome]


def at(day: int, hour: int, minute: int = 0) -> datetime:
    """An instant of January 2026, in New York's hours."""
    return datetime(2026, 1, day, hour, minute, tzinfo=NEW_YORK).astimezone(UTC)


FIRST, TICK, LATER = at(20, 11), at(21, 11), at(21, 16)
START = at(5, 9, 30)


@pytest.fixture
def collect(settings: Settings, simulator: MarketSimulator) -> Collect:
    """collect(tick) does what the task of a scheduled run does at that tick, with the vendor at that time."""
    calls = iter(range(1000))

    def call(tick: datetime, start: datetime | None = None, symbol: str = "AAPL") -> Outcome:
        simulator.set_clock(tick + timedelta(seconds=20))
        run = Run("dag", f"run-{next(calls)}", 1, tick)
        pointed = dataclasses.replace(settings, yahoo_url=simulator.url, yahoo_requests_per_second=1000.0)
        window = Window(tick, start=start) if start else Window(tick, sessions=3)
        work = Collection(pointed, run, window, timedelta(), retry_seconds=0.01)
        [outcome] = run_batch(pointed, run, COLLECT, [symbol], work, limits=LIMITS)
        return outcome

    return call


def rows(database: str, sql: str, *values: object) -> list[Row]:
    with psycopg.connect(database) as connection:
        return connection.execute(sql, values).fetchall()  # type: ignore[arg-type]


def stored(database: str) -> dict[datetime, Row]:
    """Final bars: start -> (open, high, low, close, volume)."""
    found = rows(
        database,
        "SELECT timestamp, open, high, low, close, volume FROM market_data WHERE is_final ORDER BY timestamp",
    )
    return {row[0]: row[1:] for row in found}


def truth(until: datetime, start: datetime = START, ratio: float = 1.0) -> dict[datetime, Row]:
    """What the table should hold after a run at `until`, after splits of `ratio` in all."""
    ended = {begin for begin, end in grid(start, until).items() if end <= until}
    return {
        bar.timestamp: (*(price / ratio for price in bar[1:5]), bar.volume * ratio)
        for bar in bars(SEED, "AAPL", start, until)
        if bar.timestamp in ended
    }


def assert_same(found: dict[datetime, Row], expected: dict[datetime, Row]) -> None:
    assert found.keys() == expected.keys()
    for start, row in expected.items():
        assert found[start][:4] == pytest.approx(row[:4], rel=2e-6), start
        assert abs(found[start][4] - row[4]) <= 1, start  # whole shares


def quarantined(database: str) -> list[Row]:
    return rows(database, "SELECT timestamp, reason FROM quarantined_bars ORDER BY timestamp, reason")
