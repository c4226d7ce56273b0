"""Splits as the vendor really restates them: before the open, days late, or never; the table stays on one
basis throughout.
"""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

import pytest

from include.market_simulator import MarketSimulator
from include.mltrading.market import yahoo
from include.mltrading.store import ledger, market_data
from tests.integration.collecting import (
    START,
    Collect,
    Row,
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

EX_DATE = "2026-01-21"
BEFORE = at(20, 16)
NINE, ELEVEN, CLOSE, NEXT, WEEK = at(21, 9), at(21, 11), at(21, 16), at(22, 11), at(28, 11)


def splits(database: str) -> list[Row]:
    return rows(
        database,
        "SELECT ex_date::text, value, restated_at IS NOT NULL FROM corporate_actions "
        "WHERE kind = 'split' ORDER BY ex_date",
    )


def stale_from(database: str) -> datetime | None:
    [(stale,)] = rows(database, "SELECT stale_from FROM symbol_state")
    return stale  # type: ignore[no-any-return]


def served(database: str) -> None:
    import psycopg

    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("UPDATE symbol_state SET stale_from = NULL")


@pytest.mark.parametrize("ratio", [4.0, 0.1, 1.5])
def test_a_split_restated_before_the_open(
    collect: Collect, database: str, simulator: MarketSimulator, ratio: float
) -> None:
    collect(BEFORE, START)
    served(database)
    simulator.fault("split", ex_date=EX_DATE, ratio=ratio, early=True)
    assert collect(NINE).status == "ok"
    assert_same(stored(database), truth(BEFORE, ratio=ratio))
    assert splits(database) == [(EX_DATE, ratio, True)]
    assert stale_from(database) == START
    for tick in (ELEVEN, CLOSE, NEXT):
        assert collect(tick).status == "ok"
        assert_same(stored(database), truth(tick, ratio=ratio))
    assert splits(database) == [(EX_DATE, ratio, True)]
    assert (quarantined(database), rows(database, "SELECT count(*) FROM bar_revisions")) == ([], [(0,)])


@pytest.mark.parametrize("ratio", [4.0, pytest.param(0.1, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("variant", ["at the open", "days late", "never", "never announced"])
def test_a_split_however_it_is_told(
    collect: Collect, database: str, simulator: MarketSimulator, ratio: float, variant: str
) -> None:
    collect(BEFORE, START)
    served(database)
    told = {
        "restated": variant in ("at the open", "never announced"),
        "announced": variant != "never announced",
    }
    simulator.fault("split", ex_date=EX_DATE, ratio=ratio, **told)
    for tick in (ELEVEN, CLOSE, NEXT):
        assert collect(tick).status == "ok"
        assert_same(stored(database), truth(tick, ratio=ratio))
    assert splits(database) == [(EX_DATE, ratio, True)]
    assert stale_from(database) == START
    if variant == "days late":
        simulator.clear_faults()
        simulator.fault("split", ex_date=EX_DATE, ratio=ratio)
    # Within the window of the ex-date, after it, and all of it again.
    for tick, start in ((at(23, 11), None), (WEEK, None), (WEEK, START)):
        assert collect(tick, start).status == "ok"
        assert_same(stored(database), truth(tick, ratio=ratio))
    assert splits(database) == [(EX_DATE, ratio, True)]
    assert (quarantined(database), rows(database, "SELECT count(*) FROM bar_revisions")) == ([], [(0,)])


def test_a_split_that_is_told_days_after_it_was_traded(
    collect: Collect, database: str, simulator: MarketSimulator
) -> None:
    collect(BEFORE, START)
    simulator.fault("split", ex_date=EX_DATE, ratio=4, restated=False, announced=False)
    for tick in (CLOSE, NEXT):
        assert collect(tick).status == "ok"  # nobody can know
    simulator.clear_faults()
    simulator.fault("split", ex_date=EX_DATE, ratio=4)
    assert collect(at(23, 11)).status == "ok"
    assert_same(stored(database), truth(at(23, 11), ratio=4))
    assert splits(database) == [(EX_DATE, 4.0, True)]


@pytest.mark.parametrize("restated", [True, False])
def test_two_splits(collect: Collect, database: str, simulator: MarketSimulator, restated: bool) -> None:
    collect(at(12, 16), START)
    simulator.fault("split", ex_date="2026-01-13", ratio=4, restated=restated)
    assert collect(at(13, 16)).status == "ok"
    assert_same(stored(database), truth(at(13, 16), ratio=4))
    simulator.fault("split", ex_date=EX_DATE, ratio=0.1, restated=restated)
    for tick, start in ((ELEVEN, None), (WEEK, None), (WEEK, START)):
        assert collect(tick, start).status == "ok"
        assert_same(stored(database), truth(tick, ratio=0.4))
    assert splits(database) == [("2026-01-13", 4.0, True), (EX_DATE, 0.1, True)]


@pytest.mark.parametrize("restated", [True, False])
def test_two_splits_that_a_new_symbol_brings_along(
    collect: Collect, database: str, simulator: MarketSimulator, restated: bool
) -> None:
    simulator.fault("split", ex_date="2026-01-13", ratio=4, restated=restated)
    simulator.fault("split", ex_date=EX_DATE, ratio=0.1, restated=restated)
    assert collect(NEXT, START).status == "ok"
    assert_same(stored(database), truth(NEXT, ratio=0.4))
    assert splits(database) == [("2026-01-13", 4.0, True), (EX_DATE, 0.1, True)]


def test_a_split_during_an_outage(collect: Collect, database: str, simulator: MarketSimulator) -> None:
    collect(at(15, 11), START)
    simulator.fault("split", ex_date=EX_DATE, ratio=4, restated=False)
    assert collect(WEEK).status == "ok"
    assert_same(stored(database), truth(WEEK, ratio=4))


def test_an_old_tick_after_a_split_that_is_never_restated(
    collect: Collect, database: str, simulator: MarketSimulator
) -> None:
    collect(BEFORE, START)
    simulator.fault("split", ex_date=EX_DATE, ratio=4, restated=False)
    collect(CLOSE)
    simulator.clear_faults()  # asked for the week before, the vendor shows no event
    assert collect(at(16, 11)).status == "ok"
    assert_same(stored(database), truth(CLOSE, ratio=4))


def test_a_correction_of_one_bar_is_no_split(
    collect: Collect, database: str, simulator: MarketSimulator
) -> None:
    collect(BEFORE, START)
    simulator.fault("times", factor=0.5, start=at(20, 10, 30).isoformat(), hours=1.0)
    collect(ELEVEN)
    assert splits(database) == []


def restatements(database: str) -> list[Row]:
    return rows(database, "SELECT ex_date::text, ratio, reason FROM restatements ORDER BY id")


@pytest.mark.parametrize(
    ("ratio", "told"),
    [
        (2.0, {"times": 2}),
        (0.1, {"except_day": "2026-01-16"}),
        (2.0, {"except_day": "2026-01-20"}),
        (1.196, {"restated": False}),
    ],
    ids=["twice", "but for a day", "but for the day before", "a spin-off, never"],
)
def test_history_that_the_vendor_restates_wrongly_is_stored_rightly(
    collect: Collect, database: str, simulator: MarketSimulator, ratio: float, told: dict[str, Any]
) -> None:
    collect(BEFORE, START)
    simulator.fault("split", ex_date=EX_DATE, ratio=ratio, **told)
    for tick in (ELEVEN, CLOSE):
        assert collect(tick).status == "ok"
        assert_same(stored(database), truth(tick, ratio=ratio))
    simulator.clear_faults()
    simulator.fault("split", ex_date=EX_DATE, ratio=ratio)
    for tick, start in ((NEXT, None), (WEEK, START)):
        assert collect(tick, start).status == "ok"
        assert_same(stored(database), truth(tick, ratio=ratio))
    assert splits(database) == [(EX_DATE, ratio, True)]
    assert restatements(database) == [(EX_DATE, ratio, "event")]


def test_a_split_told_with_a_wrong_day_and_ratio_is_open_until_the_vendor_restates(
    collect: Collect, database: str, simulator: MarketSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect(BEFORE, START)
    simulator.fault("split", ex_date=EX_DATE, ratio=2, restated=False, announced=False)
    fetch, wrong = yahoo.fetch_hourly, yahoo.Split(date(2026, 1, 22), 5.0)

    def telling(symbol: str, start: datetime, end: datetime, **options: Any) -> yahoo.VendorReply:
        told = [wrong] if start.date() <= wrong.ex_date <= end.date() else []
        return dataclasses.replace(fetch(symbol, start, end, **options), splits=told)

    monkeypatch.setattr(yahoo, "fetch_hourly", telling)
    for tick in (at(22, 16), at(27, 16)):
        assert collect(tick).status == "ok"
        assert splits(database) == [("2026-01-22", 5.0, False)]
    simulator.clear_faults()
    simulator.fault("split", ex_date=EX_DATE, ratio=2, announced=False)
    assert collect(WEEK).status == "ok"
    assert_same(stored(database), truth(WEEK, ratio=2))
    assert splits(database) == [(EX_DATE, 2.0, True), ("2026-01-22", 5.0, True)]


def test_a_split_that_is_withdrawn_is_taken_back_and_both_are_on_record(
    collect: Collect, database: str, simulator: MarketSimulator
) -> None:
    collect(BEFORE, START)
    before = stored(database)
    simulator.fault("split", ex_date=EX_DATE, ratio=2, early=True)  # in the evening before, for all of it
    assert collect(at(21, 8)).status == "ok"
    simulator.clear_faults()
    assert collect(ELEVEN).status == "ok"
    assert_same(stored(database), truth(ELEVEN))
    assert stored(database).items() >= before.items()
    assert splits(database) == []
    assert restatements(database) == [(EX_DATE, 2.0, "ratio"), (EX_DATE, 0.5, "taken back")]
    assert rows(database, "SELECT ex_date::text, value FROM corporate_action_history") == [(EX_DATE, 2.0)]


def test_dividends_are_restated_with_the_bars_and_follow_the_vendors_corrections(
    collect: Collect, database: str, simulator: MarketSimulator
) -> None:
    paid = "SELECT ex_date::text, value FROM corporate_actions WHERE kind = 'dividend' ORDER BY ex_date"
    for day in ("2026-01-12", "2026-01-16"):
        simulator.fault("dividend", ex_date=day, amount=0.5)
    collect(BEFORE, START)
    simulator.clear_faults()
    simulator.fault("dividend", ex_date="2026-01-20", amount=0.25)  # moved, and told on the new basis
    simulator.fault("split", ex_date=EX_DATE, ratio=2)
    simulator.fault("dividend", ex_date="2026-01-12", amount=0.25)
    assert collect(CLOSE).status == "ok"
    assert rows(database, paid) == [("2026-01-12", 0.25), ("2026-01-20", 0.25)]
    ended = "SELECT ex_date::text, value FROM corporate_action_history"
    assert rows(database, ended) == [("2026-01-16", 0.25)]


def test_a_dividend_stays_while_the_vendors_events_cannot_be_read(
    collect: Collect, database: str, simulator: MarketSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.fault("dividend", ex_date="2026-01-16", amount=0.5)
    collect(BEFORE, START)
    fetch = yahoo.fetch_hourly

    def lossy(*arguments: Any, **options: Any) -> yahoo.VendorReply:
        return dataclasses.replace(fetch(*arguments, **options), dividends=[], events_lost=True)

    monkeypatch.setattr(yahoo, "fetch_hourly", lossy)
    assert collect(CLOSE, START).status == "ok"
    assert rows(database, "SELECT ex_date::text, value FROM corporate_actions") == [("2026-01-16", 0.5)]


STEPS: list[tuple[Any, str]] = [
    (market_data, "record_split"), (market_data, "retract_bars"), (market_data, "upsert_bars"),
    (market_data, "quarantine"), (market_data, "record_dividends"),
    (ledger, "finish"),
]  # fmt: skip


@pytest.fixture
def dying_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], None]:
    def arrange(module: Any, name: str) -> None:
        real = getattr(module, name)

        def step(*arguments: Any, **options: Any) -> None:
            real(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(module, name, step)

    return arrange


@pytest.mark.parametrize(
    ("module", "name"),
    [
        pytest.param(*step, id=step[1], marks=[] if step[1] == "upsert_bars" else [pytest.mark.exhaustive])
        for step in STEPS
    ],
)
def test_a_crash_between_any_two_steps_leaves_all_or_nothing(
    collect: Collect, database: str, simulator: MarketSimulator, dying_after: Any,
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str,
) -> None:  # fmt: skip
    collect(BEFORE, START)
    served(database)
    before = stored(database)
    simulator.fault("split", ex_date=EX_DATE, ratio=4)
    dying_after(module, name)
    assert collect(ELEVEN).status == "crashed"
    assert (stored(database), splits(database), stale_from(database)) == (before, [], None)
    monkeypatch.undo()
    assert collect(ELEVEN).status == "ok"
    assert_same(stored(database), truth(ELEVEN, ratio=4))
    assert splits(database) == [(EX_DATE, 4.0, True)]


def test_the_record_tells_how_many_bars_were_restated_and_why(
    collect: Collect, database: str, simulator: MarketSimulator
) -> None:
    collect(BEFORE, START)
    simulator.fault("split", ex_date=EX_DATE, ratio=4, early=True)
    collect(NINE)
    record = "SELECT ex_date, bars_restated, evidence, length(correlation_id) FROM corporate_actions"
    assert rows(database, record) == [(date(2026, 1, 21), len(truth(BEFORE)), "ratio", 12)]
    collect(ELEVEN)
    assert rows(database, record) == [(date(2026, 1, 21), len(truth(BEFORE)), "event", 12)]
