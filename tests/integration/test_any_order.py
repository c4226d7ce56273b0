"""However runs follow, overlap or repeat each other, the final rows are the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from include.market_simulator import MarketSimulator
from include.mltrading.cli.task import Task, run_task
from include.mltrading.configuration.settings import Settings
from include.mltrading.market.calendar import NEW_YORK, grid
from include.mltrading.pipeline.collect import Collection
from include.mltrading.pipeline.exit_codes import EXIT_SKIP
from include.mltrading.pipeline.run import Run
from include.mltrading.pipeline.steps import COLLECT
from include.mltrading.pipeline.window import Window
from include.mltrading.store import ledger
from include.mltrading.store.connection import connect
from tests.integration.collecting import assert_same, rows, stored, truth

pytestmark = pytest.mark.integration

MONDAY = datetime(2026, 1, 12, 9, 30, tzinfo=NEW_YORK).astimezone(UTC)
FRIDAY = datetime(2026, 1, 16, 16, tzinfo=NEW_YORK).astimezone(UTC)
HOURS = int((FRIDAY - MONDAY).total_seconds() // 3600)

Collect = Callable[..., int]


@pytest.fixture
def collect(
    settings: Settings, simulator: MarketSimulator, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Collect]:
    """collect(window) does what a symbol's process does, in this one; live runs see the running bar."""
    monkeypatch.setattr(Run, "is_live", lambda run: not run.backfill)
    calls = iter(range(100_000))
    pointed = dataclasses.replace(settings, yahoo_url=simulator.url, yahoo_requests_per_second=1000.0)

    def call(window: Window, *, backfill: bool = False, now: datetime | None = None) -> int:
        simulator.set_clock(now or window.end + timedelta(seconds=20))
        run = Run("dag", f"run-{next(calls)}", 1, window.end, backfill)
        with connect(settings) as connection:
            ledger.claim(connection, run.attempt(COLLECT), ["AAPL"])
        return Collection(pointed, run, window, timedelta(), retry_seconds=0.01)("AAPL", lambda: None)

    return call


def emptied(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("TRUNCATE market_data, symbol_state, bar_revisions, quarantined_bars")


def everything(database: str) -> list[Any]:
    return rows(database, "SELECT xmin::text, * FROM market_data ORDER BY timestamp")


@st.composite
def windows(draw: st.DrawFn) -> Window:
    """From some hour of the week to a later one."""
    first = draw(st.integers(0, HOURS - 1))
    last = draw(st.integers(first + 1, HOURS))
    return Window(MONDAY + timedelta(hours=last, minutes=30), start=MONDAY + timedelta(hours=first))


def has_ended_bars(window: Window) -> bool:
    assert window.start is not None
    return any(end <= window.end for end in grid(window.start, window.end).values())


@hypothesis_settings(
    max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True
)
@given(
    asked=st.lists(windows().filter(has_ended_bars), min_size=2, max_size=5),
    fault=st.sampled_from(["disorder", "duplicates", "off_grid", "live_row", None]),
)
def test_any_order_repetition_or_overlap_of_windows_gives_the_same_final_rows(
    collect: Collect, database: str, simulator: MarketSimulator, asked: list[Window], fault: str | None
) -> None:
    emptied(database)
    simulator.clear_faults()
    if fault:
        simulator.fault(fault)
    expected = {}
    for window in asked:
        collect(window)
        expected.update(truth(window.end, window.start))
        assert_same(stored(database), expected)
    before = everything(database)
    for window in asked:
        # The vendor knows more by now; what had ended at the window's end is the same.
        assert collect(window, backfill=True, now=FRIDAY) == 0
    assert everything(database) == before
    assert rows(database, "SELECT count(*) FROM bar_revisions") == [(0,)]


def ticks(monday: date, hours: list[int]) -> Iterator[datetime]:
    for day in range(5):
        for hour in hours:
            local = datetime(monday.year, monday.month, monday.day, hour, tzinfo=NEW_YORK)
            yield (local + timedelta(days=day)).astimezone(UTC)


def run_week(
    collect: Collect, settings: Settings, monday: date, hours: list[int], after_each: Callable[..., None]
) -> list[datetime]:
    """The week's scheduled runs as they come; returns the ticks that were not skipped."""
    worked = []
    for tick in ticks(monday, hours):
        run = Run("dag", f"check-{tick.isoformat()}", 1, tick)
        if run_task(Task("check_session", run, False), settings) == EXIT_SKIP:
            continue
        collect(Window(tick, sessions=3))
        worked.append(tick)
        after_each(tick)
    return worked


WEEKS = {
    "holiday Monday": (date(2026, 1, 19), 4, 28),
    "Thanksgiving, half day after it": (date(2025, 11, 24), 4, 24),
    "first week of summer time": (date(2026, 3, 9), 5, 35),
    "first week of winter time": (date(2025, 11, 3), 5, 35),
}


@pytest.mark.parametrize("name", WEEKS)
def test_special_weeks_are_as_they_should_be_at_every_tick(
    collect: Collect, settings: Settings, database: str, name: str
) -> None:
    monday, days, bars = WEEKS[name]
    start = datetime(monday.year, monday.month, monday.day, tzinfo=NEW_YORK) - timedelta(days=10)
    start = start.astimezone(UTC)
    collect(
        Window(datetime(monday.year, monday.month, monday.day, tzinfo=NEW_YORK).astimezone(UTC), start=start)
    )

    def check(tick: datetime) -> None:
        assert_same(stored(database), truth(tick, start))

    worked = run_week(collect, settings, monday, [9, 10, 16], check)
    assert len(worked) == 3 * days
    of_the_week = [at for at in stored(database) if at.astimezone(NEW_YORK).date() >= monday]
    assert len(of_the_week) == bars
    assert {(at.astimezone(NEW_YORK).hour, at.minute) for at in of_the_week} == {
        (h, 30) for h in range(9, 16)
    }


def test_a_backfill_of_a_week_gives_the_rows_of_its_hourly_runs(
    collect: Collect, settings: Settings, database: str, simulator: MarketSimulator
) -> None:
    monday = date(2026, 1, 19)
    year = Window(datetime(2026, 1, 17, tzinfo=UTC), start=datetime(2026, 1, 5, tzinfo=UTC))
    provisional = []

    def note(tick: datetime) -> None:
        provisional.extend(rows(database, "SELECT timestamp FROM market_data WHERE NOT is_final"))

    # One spike is part of what the vendor has to say.
    simulator.fault("times", factor=100.0, start="2026-01-21T12:30:00-05:00", hours=1.0)
    collect(year)
    worked = run_week(collect, settings, monday, [9, 10, 12, 14, 16], note)
    hourly = stored(database)
    assert provisional
    assert len(hourly) == len(truth(worked[-1], datetime(2026, 1, 5, tzinfo=UTC))) - 1
    # Clearing any old tick changes nothing, not even a row's version.
    before = everything(database)
    for tick in (worked[0], worked[7], worked[-2]):
        collect(Window(tick, sessions=3), backfill=True, now=worked[-1] + timedelta(days=1))
    assert everything(database) == before
    emptied(database)
    collect(year, backfill=True)
    for tick in worked:
        collect(Window(tick, sessions=3), backfill=True, now=worked[-1] + timedelta(days=1))
    assert stored(database) == hourly
    assert rows(database, "SELECT count(*) FROM market_data WHERE NOT is_final") == [(0,)]
