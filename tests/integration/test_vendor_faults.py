"""Whatever the vendor does, the table is right: each fault through the real yfinance, and its end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from include.market_simulator import MarketSimulator
from tests.integration.collecting import (
    FIRST,
    LATER,
    START,
    TICK,
    Collect,
    assert_same,
    at,
    quarantined,
    rows,
    stored,
    truth,
)
from tests.integration.collecting import collect as collect

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

FAILING = [
    ("empty", {}), ("html", {}), ("cut", {}), ("reset", {}), ("status", {"status": 500}),
    ("status", {"status": 404}), ("status", {"status": 429, "retry_after": 3000.0}),
    ("wrong_zone", {"hours": 1}), ("times", {"factor": 100.0}), ("times", {"factor": 1.37}),
    pytest.param("wrong_zone", {"hours": -5}, marks=pytest.mark.exhaustive),
    pytest.param("times", {"factor": 0.01}, marks=pytest.mark.exhaustive),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), FAILING)
def test_a_reply_that_is_no_use_changes_nothing_and_nothing_is_lost_by_it(
    collect: Collect, database: str, simulator: MarketSimulator, kind: str, options: dict[str, Any]
) -> None:
    collect(FIRST, START)
    before = stored(database)
    assert_same(before, truth(FIRST))
    simulator.fault(kind, **options)
    outcome = collect(TICK)
    assert outcome.status == "error"
    assert stored(database) == before
    assert quarantined(database) == []
    simulator.clear_faults()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("UPDATE request_clock SET not_before = '-infinity'")
    assert collect(TICK).status == "ok"
    assert_same(stored(database), truth(TICK))
    assert rows(database, "SELECT count(*) FROM bar_revisions") == [(0,)]


HARMLESS = [
    ("disorder", {}, 0), ("off_grid", {"every": 1}, 0), ("live_row", {}, 0),
    ("live_row", {"instead": True}, 0), ("missing_day", {"day": "2026-01-20"}, 0),
    ("duplicates", {"every": 2}, 0), ("duplicates", {"every": 2, "factor": 1.02}, 5),
    ("gaps", {"every": 3}, 0), ("nan_rows", {"every": 2}, 0),
    ("nan_rows", {"every": 2, "fields": "close"}, 5), ("high_below_low", {"every": 2}, 5),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options", "least_refused"), HARMLESS)
def test_bad_rows_stay_out_the_others_come_in_and_the_rest_follows(
    collect: Collect, database: str, simulator: MarketSimulator, kind: str, options: dict[str, Any],
    least_refused: int,
) -> None:  # fmt: skip
    collect(FIRST, START)
    simulator.fault(kind, **options)
    assert collect(TICK).status == "ok"
    found, expected = stored(database), truth(TICK)
    assert_same(found, {start: expected[start] for start in found})
    assert truth(FIRST).keys() <= found.keys()
    if kind in ("disorder", "off_grid", "live_row", "duplicates"):
        assert found.keys() == expected.keys()
    once = quarantined(database)
    assert len(once) >= least_refused
    collect(TICK)
    assert quarantined(database) == once  # counted once, however often it is fetched
    simulator.clear_faults()
    assert collect(TICK).status == "ok"
    assert_same(stored(database), expected)
    assert rows(database, "SELECT count(*) FROM bar_revisions") == [(0,)]


@pytest.mark.parametrize(
    ("factor", "hour"), [(100.0, 10), pytest.param(0.01, 15, marks=pytest.mark.exhaustive), (1.6, 13)]
)
def test_a_spike_stays_out_whenever_it_is_seen(
    collect: Collect, database: str, simulator: MarketSimulator, factor: float, hour: int
) -> None:
    collect(FIRST, START)
    spike = at(20, hour, 30)
    simulator.fault("times", factor=factor, start=spike.isoformat(), hours=1.0)
    for tick in (spike + timedelta(minutes=90), LATER):
        assert collect(tick).status == "ok"
    expected = truth(LATER)
    assert_same(stored(database), {start: row for start, row in expected.items() if start != spike})
    assert {start for start, _ in quarantined(database)} == {spike}
    simulator.clear_faults()
    collect(LATER)
    assert_same(stored(database), expected)


def test_a_reply_without_one_usable_bar_fails_and_its_bars_are_in_quarantine(
    collect: Collect, database: str, simulator: MarketSimulator
) -> None:
    collect(FIRST, START)
    before = stored(database)
    simulator.fault("nan_rows", fields="volume")
    outcome = collect(TICK)
    assert outcome.status == "error"
    once = quarantined(database)
    assert f"({len(once)} refused)" in str(outcome.error)
    assert_same(stored(database), before)
    collect(TICK)
    assert quarantined(database) == once
    simulator.clear_faults()
    assert collect(TICK).status == "ok"
    assert_same(stored(database), truth(TICK))


def test_a_spike_in_a_bar_that_is_already_stored_leaves_the_stored_one(
    collect: Collect, database: str, simulator: MarketSimulator
) -> None:
    collect(TICK, START)
    simulator.fault("times", factor=100.0, start=at(20, 12, 30).isoformat(), hours=1.0)
    assert collect(LATER).status == "ok"
    assert_same(stored(database), truth(LATER))
    [(start, reason)] = quarantined(database)
    assert start == at(20, 12, 30)
    assert reason == "100 times the stored bar"


def test_an_earnings_gap_that_holds_is_stored_in_its_first_hour(
    collect: Collect, database: str, simulator: MarketSimulator
) -> None:
    collect(FIRST, START)
    simulator.fault("times", factor=0.6, start=at(21, 9, 30).isoformat(), hours=10_000.0)
    for tick in (TICK, LATER):
        assert collect(tick).status == "ok"
    assert stored(database).keys() == truth(LATER).keys()
    assert quarantined(database) == []


def test_a_jump_that_later_bars_confirm_was_never_refused(
    collect: Collect, database: str, simulator: MarketSimulator
) -> None:
    collect(FIRST, START)
    simulator.fault("times", factor=5.0, start=at(21, 9, 30).isoformat(), hours=10_000.0)
    collect(TICK)
    [(start, reason)] = quarantined(database)
    assert (start, reason.endswith("later bars must confirm")) == (at(21, 9, 30), True)
    assert at(21, 9, 30) not in stored(database)
    collect(LATER)
    assert stored(database).keys() == truth(LATER).keys()
    assert quarantined(database) == []


def test_a_revision_is_taken_over_and_the_old_value_kept(
    collect: Collect, database: str, simulator: MarketSimulator
) -> None:
    collect(TICK, START)
    simulator.fault("revision", start=at(20, 12, 30).isoformat(), factor=1.01)
    assert collect(LATER).status == "ok"
    found, expected = stored(database), truth(LATER)
    changed = [start for start in expected if found[start] != pytest.approx(expected[start], rel=1e-6)]
    assert changed == [at(20, 12, 30)]
    assert rows(database, "SELECT timestamp, close FROM bar_revisions") == [
        (at(20, 12, 30), expected[at(20, 12, 30)][3])
    ]


def test_a_day_that_the_vendor_lacks_for_a_week_is_asked_for_until_it_comes(
    collect: Collect, database: str, simulator: MarketSimulator
) -> None:
    collect(at(12, 16), START)
    simulator.fault("missing_day", day="2026-01-13")
    for tick in (at(13, 16), at(14, 11), LATER):
        collect(tick)
    assert len(stored(database)) == len(truth(LATER)) - 7
    simulator.clear_faults()
    assert collect(at(22, 11)).status == "ok"
    assert_same(stored(database), truth(at(22, 11)))


def test_a_time_out_is_a_failure_that_costs_nothing(
    collect: Collect, database: str, simulator: MarketSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("include.mltrading.pipeline.vendor.REQUEST_SECONDS", 0.3)
    collect(FIRST, START)
    simulator.fault("slow", seconds=2.0)
    before = stored(database)
    assert "timed out" in (collect(TICK).error or "")
    assert stored(database) == before
    simulator.clear_faults()
    assert collect(TICK).status == "ok"
    assert_same(stored(database), truth(TICK))
