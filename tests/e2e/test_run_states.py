"""The states, the record and the result of runs that go wrong, are repeated, or have nothing to do.

Every decision is Airflow's, every task does its work; but no scheduler is waited for, see airflow_side.py.
What a scheduler, an executor and tasks side by side make of the same DAGs: test_scheduled_runs.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from airflow_lanes import on_2
from running_installation import (
    Installation,
    bars_until,
    installed,
    past_holiday,
    tick_of,
)

from include.standalone.demo import COLLECTION, FEATURES, LOAD

pytestmark = [pytest.mark.e2e, on_2]

SYMBOLS = ["AAPL", "IBM", "MSFT"]
SERVED = dict.fromkeys(SYMBOLS, "success")


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory, new_state: Callable[[], Path]) -> Iterator[Installation]:
    """Three symbols, empty databases and no scheduler."""
    with installed(new_state(), tmp_path_factory.mktemp("configuration"), SYMBOLS) as there:
        there.ask_airflow("known", LOAD)
        for dag_id in (LOAD, COLLECTION, FEATURES):
            there.pause(dag_id, False)
        yield there


def test_an_on_demand_run_of_some_symbols_touches_only_those_and_repeats_the_instant_of_its_trigger(
    there: Installation,
) -> None:
    run = there.trigger("load_one", symbols=["IBM"], period="1mo")

    assert run.state == "success"
    states = there.states(run)
    assert states["collect_symbol"] == states["compute_features"] == {"IBM": "success"}
    steps = ("collect_symbol", "compute_features")
    assert [row[:4] for row in there.ledger(run)] == [(step, "IBM", 1, "ok") for step in steps]

    assert there.clear(run, "collect_symbol").state == "success"
    rows = there.ledger(run)
    assert [row[:4] for row in rows] == [(step, "IBM", number, "ok") for step in steps for number in (1, 2)]
    assert len({row[5] for row in rows}) == 1


def test_clearing_an_old_tick_repeats_it_at_the_same_instant_and_writes_nothing(
    there: Installation,
) -> None:
    day = there.next_day()
    collection, features = there.run_tick(day)
    # The rest of the day is collected meanwhile: bars that were running at the old tick are final now.
    there.stack.run("-m", "include.mltrading", "collect", "--end", day.close.isoformat())
    there.stack.run("-m", "include.mltrading", "features")
    stored = there.everything_stored()
    assert len(there.final_bars("IBM", day.open)) == 7

    again = there.clear(collection), there.clear(features)

    assert [run.state for run in again] == ["success", "success"]
    for run, dag_id in zip(again, (COLLECTION, FEATURES), strict=True):
        rows = there.ledger(run)
        assert [row[2:] for row in rows if row[2] == 2] == [(2, "ok", 0, tick_of(day, dag_id))] * 3
        assert {row[5] for row in rows} == {tick_of(day, dag_id)}
    assert there.everything_stored() == stored


def test_one_failed_symbol_makes_the_run_red_after_the_others_were_served(there: Installation) -> None:
    day = there.next_day()
    expected = bars_until(day, tick_of(day))
    with there.fault("cut", "IBM"):
        collection, features = there.run_tick(day)

    assert (collection.state, features.state) == ("failed", "success")
    assert there.states(collection) == {
        "check_session": "success",
        "collect_symbol": {**SERVED, "IBM": "failed"},
        "publish_bars": "success",
        "verify_bars": "failed",
    }
    assert _flat(there.states(features)) == {"success"}
    assert re.search(r"2 of 3 symbols served.*failed: IBM \(error", there.log(collection, "verify_bars"))
    for symbol in ("AAPL", "MSFT"):
        assert there.feature_rows(symbol, day.open) == expected
    assert there.final_bars("IBM", day.open) == []


def test_too_few_symbols_close_the_gate_and_clearing_both_runs_repairs_them(there: Installation) -> None:
    day = there.next_day()
    expected = bars_until(day, tick_of(day))
    with there.fault("cut", "AAPL", "IBM"):
        collection, features = there.run_tick(day)

    assert (collection.state, features.state) == ("failed", "failed")
    assert there.states(collection) == {
        "check_session": "success",
        "collect_symbol": {"AAPL": "failed", "IBM": "failed", "MSFT": "success"},
        "publish_bars": "failed",
        "verify_bars": "upstream_failed",
    }
    assert _with_unmapped(there.states(features)) == {
        "wait_for_bars": "failed",
        "compute_features": "upstream_failed",
        "publish_features": "skipped",
        "verify_features": "upstream_failed",
    }
    assert f"clear it in {COLLECTION}, then clear this task" in there.log(features, "wait_for_bars")
    assert there.ledger(features) == []
    assert there.feature_rows("MSFT", day.open) == []

    assert there.clear(collection).state == "success"
    assert there.clear(features, "wait_for_bars").state == "success"
    for symbol in SYMBOLS:
        assert there.feature_rows(symbol, day.open) == expected


def test_both_runs_of_an_exchange_holiday_skip_themselves_and_are_green(there: Installation) -> None:
    holiday = past_holiday()
    ids = [(dag_id, there.plant(dag_id, tick_of(holiday, dag_id))) for dag_id in (COLLECTION, FEATURES)]
    runs = [there.ended(dag_id, run_id) for dag_id, run_id in ids]

    for run in runs:
        assert run.state == "success"
        assert _flat(there.states(run)) == {"skipped"}
        assert there.ledger(run) == []
    assert f"{holiday} is no session of the exchange" in there.log(runs[0], "check_session")


def test_a_features_run_whose_collection_never_existed_skips_and_says_why(there: Installation) -> None:
    """As after unpausing between the two ticks of an hour."""
    day = there.next_day()
    run = there.ended(FEATURES, there.plant(FEATURES, tick_of(day, FEATURES)))

    assert run.state == "success"
    assert _flat(there.states(run)) == {"skipped"}
    assert there.ledger(run) == []
    log = there.log(run, "wait_for_bars")
    assert f"{COLLECTION} has no run for the tick {tick_of(day):%Y-%m-%d %H:%M}" in log
    assert "it was not running then" in log


def _flat(states: dict[str, object]) -> set[object]:
    """All states that occur."""
    found: set[object] = set()
    for state in states.values():
        found |= set(state.values()) if isinstance(state, dict) else {state}
    return found


def _with_unmapped(states: dict[str, object]) -> dict[str, object]:
    """One state for a mapped task whose instances all share it, whether or not they were made."""
    return {
        task_id: next(iter(set(state.values())))
        if isinstance(state, dict) and len(set(state.values())) == 1
        else state
        for task_id, state in states.items()
    }
