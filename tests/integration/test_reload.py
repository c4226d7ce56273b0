"""A ticker that was given to another company: its bars stay out, until `reload` puts the old ones away."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from include.market_simulator import MarketSimulator
from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import OtherHistoryError
from include.mltrading.operations.reload import Reload
from include.mltrading.pipeline.batch import run_batch
from include.mltrading.pipeline.run import Run
from include.mltrading.pipeline.runner import Outcome
from include.mltrading.pipeline.steps import RELOAD
from include.mltrading.pipeline.window import Window
from include.mltrading.store import ledger, market_data
from tests.integration.collecting import LIMITS, START, Collect, Row, assert_same, at, rows, stored, truth
from tests.integration.collecting import collect as collect

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

OLD, NEW = at(14, 16), at(29, 16)  # what is stored, and when the next look comes
ALL_TABLES = (
    "market_data", "feature_engineered_data", "symbol_state", "bar_revisions", "corporate_actions",
    "corporate_action_history", "quarantined_bars", "lookback_bars",
)  # fmt: skip

# What is stored of the old company, since when the new one trades, whether the vendor says so, where a window
# of the user's own begins.
OTHERS = [
    pytest.param(OLD, "2026-01-26", True, None, id="a gap, and the vendor says since when"),
    pytest.param(OLD, "2026-01-26", False, None, id="a gap, and the vendor does not say"),
    pytest.param(OLD, "2026-01-05", True, None, id="at once, the newest bar is shared"),
    pytest.param(at(5, 10, 30), "2026-01-05", True, None, id="at once, one bar was stored"),
    pytest.param(OLD, "2026-01-05", True, at(20, 9, 30), id="at once, no bar is shared"),
]  # fmt: skip


@pytest.mark.parametrize(("until", "since", "told", "start"), OTHERS)
def test_bars_of_another_company_stay_out(
    collect: Collect,
    database: str,
    simulator: MarketSimulator,
    until: Any,
    since: str,
    told: bool,
    start: Any,
) -> None:
    collect(until, START)
    before = stored(database)
    assert before
    simulator.fault("another_company", since=since, told=told, factor=7.3)
    outcome = collect(NEW, start)
    assert (outcome.failure, outcome.hopeless) == (OtherHistoryError.__name__, True)
    assert "reload --symbols AAPL" in (outcome.error or "")
    assert stored(database) == before


# Of one company in spite of a first day of trading that is wrong, or of news.
CRASH = {"factor": 0.3, "start": at(15, 9, 30).isoformat(), "hours": 500.0}
SAME = [
    pytest.param("first_trade", {"day": "2026-01-26"}, None, id="a first day after bars that it serves"),
    pytest.param("first_trade", {"day": "2026-01-09"}, None, id="a first day some days off"),
    pytest.param("first_trade", {}, at(20, 9, 30), id="no first day, and no bar is shared"),
    pytest.param("gaps", {"every": 2}, None, id="the shared bar is gone"),
    pytest.param("times", CRASH, at(15, 9, 30), id="a crash over night, and no bar is shared"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options", "start"), SAME)
def test_bars_of_the_same_company_come_in(
    collect: Collect, database: str, simulator: MarketSimulator, kind: str, options: dict[str, Any],
    start: Any,
) -> None:  # fmt: skip
    collect(OLD, START)
    simulator.fault(kind, **options)
    assert collect(NEW, start).status == "ok"
    assert max(stored(database)) > at(28, 16)


@pytest.fixture
def reload(settings: Settings, simulator: MarketSimulator) -> Collect:
    """reload() replaces history from START up to NEW, with the vendor at that time."""
    calls = iter(range(1000))

    def call(symbol: str = "AAPL") -> Outcome:
        simulator.set_clock(NEW + timedelta(seconds=20))
        pointed = dataclasses.replace(settings, yahoo_url=simulator.url, yahoo_requests_per_second=1000.0)
        run = Run("cli", f"reload-{next(calls)}", 1, NEW)
        work = Reload(pointed, run, Window(NEW, start=START), timedelta(), retry_seconds=0.01)
        [outcome] = run_batch(pointed, run, RELOAD, [symbol], work, limits=LIMITS)
        return outcome

    return call


def contents(database: str, *but: str) -> dict[str, list[Row]]:
    return {
        table: rows(database, f"SELECT * FROM {table} ORDER BY 1, 2")  # noqa: S608
        for table in ALL_TABLES
        if table not in but
    }


def mirrored(row: Row) -> Row:
    """A bar of the simulator's other company."""
    opened, high, low, close = (7.3 * 10_000 / row[index] for index in (0, 2, 1, 3))
    return (opened, high, low, close, row[4])


@pytest.fixture
def old_company(collect: Collect, database: str, simulator: MarketSimulator) -> dict[Any, Row]:
    """What is stored of it: bars, a split, a dividend, a released bar, features, archived bars."""
    simulator.fault("split", ex_date="2026-01-08", ratio=4.0, restated=False)
    simulator.fault("dividend", ex_date="2026-01-09", amount=0.5)
    collect(at(7, 16), START)
    collect(OLD)
    simulator.clear_faults()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO quarantined_bars (symbol, timestamp, reason, payload_hash, payload, correlation_id,"
            " released_at) VALUES ('AAPL', %s, 'a spike', 'x', '{}', 'y', now())", (at(14, 9, 30),),
        )  # fmt: skip
        connection.execute(
            "INSERT INTO lookback_bars SELECT symbol, timestamp - interval '30 days', open, high, low, close,"
            " volume FROM market_data"
        )
        connection.execute("UPDATE symbol_state SET archived_before = %s, stale_from = NULL", (START,))
        connection.execute(
            "INSERT INTO feature_engineered_data (symbol, timestamp, feature_version)"
            " SELECT symbol, timestamp, 'v' FROM market_data"
        )
    simulator.fault("another_company", since="2026-01-12", factor=7.3)
    return stored(database)


@pytest.mark.usefixtures("old_company")
def test_a_reload_replaces_all_that_is_stored_and_loses_nothing(
    reload: Collect, database: str, old_company: dict[Any, Row]
) -> None:
    outcome = reload()
    assert outcome.status == "ok"
    first = at(12, 9, 30)
    expected = {start: mirrored(row) for start, row in truth(NEW, first).items()}
    assert_same(stored(database), expected)
    kept = rows(database, "SELECT timestamp, open, high, low, close, volume FROM bar_revisions ORDER BY 1")
    assert {row[0]: row[1:] for row in kept} == old_company
    assert rows(database, "SELECT stale_from <= %s, archived_before FROM symbol_state", first) == [
        (True, None)
    ]
    assert rows(database, "SELECT count(*) FROM feature_engineered_data") == [(0,)]
    assert rows(database, "SELECT count(*) FROM lookback_bars") == [(0,)]
    assert rows(database, "SELECT kind, value FROM corporate_actions") == []
    gone = "SELECT kind, value, restated_at IS NOT NULL FROM corporate_action_history ORDER BY kind"
    assert [(kind, done) for kind, _, done in rows(database, gone)] == [("dividend", False), ("split", True)]
    assert rows(database, "SELECT count(*) FROM quarantined_bars WHERE payload_hash = 'x'") == [(0,)]
    audit = "SELECT step, symbol, status, rows_written FROM processing_history WHERE step = 'reload_symbol'"
    assert rows(database, audit) == [("reload_symbol", "AAPL", "ok", len(expected) + len(old_company))]
    # Once more changes nothing.
    before = contents(database, "symbol_state")
    assert reload().status == "ok"
    assert contents(database, "symbol_state") == before


@pytest.mark.usefixtures("old_company")
def test_what_was_reloaded_is_collected_again(collect: Collect, reload: Collect) -> None:
    assert collect(NEW).status == "error"
    assert reload().status == "ok"
    assert collect(NEW).status == "ok"


def test_a_split_in_the_reply_is_on_record_and_its_bars_run_on(
    collect: Collect, reload: Collect, database: str, simulator: MarketSimulator
) -> None:
    collect(OLD, START)
    simulator.fault("split", ex_date="2026-01-21", ratio=4.0, restated=False)
    assert reload().status == "ok"
    assert_same(stored(database), truth(NEW, ratio=4.0))
    record = "SELECT ex_date::text, value, restated_at IS NOT NULL FROM corporate_actions"
    assert rows(database, record) == [("2026-01-21", 4.0, True)]


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ({"another_company": {"since": "2026-01-20", "told": False}}, "bars from 2026-01-20 to 2026-01-29"),
        ({"another_company": {"since": "2026-01-20", "told": False}, "first_trade": {"day": "2100-01-04"}},
         "bars from 2026-01-20 to 2026-01-29"),
        ({"gaps": {"every": 2}}, "of the .* hours of the others"),
        ({"high_below_low": {"every": 2}}, "of the .* hours of the others"),
        ({"nan_rows": {}}, "no final bar|none that is usable"),
        ({"empty": {}}, ""),
    ],
    ids=["from later on", "first traded in the future", "half of the hours", "half of them refused",
         "no usable bar", "nothing"],
)  # fmt: skip
def test_a_window_that_the_vendor_does_not_fill_changes_nothing(
    collect: Collect, reload: Collect, database: str, simulator: MarketSimulator,
    faults: dict[str, dict[str, Any]], words: str,
) -> None:  # fmt: skip
    collect(OLD, START)
    before = contents(database, "quarantined_bars")
    for kind, options in faults.items():
        simulator.fault(kind, **options)
    outcome = reload()
    assert outcome.status == "error"
    assert re.search(words, outcome.error or "")
    assert contents(database, "quarantined_bars") == before


STEPS: list[tuple[Any, str]] = [
    (market_data, "retract_bars"), (market_data, "end_actions"), (market_data, "take_back_releases"),
    (market_data, "upsert_bars"), (market_data, "forget_archive"), (ledger, "finish"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("module", "name"),
    [
        pytest.param(*step, id=step[1], marks=[] if step[1] == "upsert_bars" else [pytest.mark.exhaustive])
        for step in STEPS
    ],
)
def test_a_crash_between_any_two_steps_of_a_reload_leaves_all_or_nothing(
    reload: Collect, database: str, old_company: dict[Any, Row], monkeypatch: pytest.MonkeyPatch,
    module: Any, name: str,
) -> None:  # fmt: skip
    before = contents(database)
    real: Callable[..., Any] = getattr(module, name)

    def dying(*arguments: Any, **options: Any) -> None:
        real(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(module, name, dying)
    assert reload().status == "crashed"
    assert contents(database) == before
    monkeypatch.undo()
    assert reload().status == "ok"
    assert stored(database).keys() == truth(NEW, at(12, 9, 30)).keys()


def test_symbols_are_reloaded_each_for_itself_on_the_command_line(
    cli: Callable[..., Any], database: str
) -> None:
    """With the clock of today, as a user does it; one symbol's window cannot be filled."""
    with MarketSimulator() as simulator:
        environment = {
            "MLTRADING_DATABASE_URL": database, "MLTRADING_YAHOO_URL": simulator.url,
            "MLTRADING_YAHOO_REQUESTS_PER_SECOND": "100",
        }  # fmt: skip
        assert cli("collect", "--symbols", "AAPL,MSFT", "--period", "1mo", **environment).code == 0
        simulator.fault("empty", symbol="MSFT")
        done = cli("reload", "--symbols", "AAPL,MSFT", "--period", "2mo", "--json", **environment)
        assert done.code == 1
        told = {row["symbol"]: (row["status"], row["rows"] > 0) for row in done.document["symbols"]}
        assert told == {"AAPL": ("ok", True), "MSFT": ("error", False)}
        done = cli("reload", "--symbols", "NFLX", **environment)
        assert (done.code, "no bar is stored of NFLX" in done.err) == (2, True)
