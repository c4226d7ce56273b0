"""What people are told about missing and refused bars, and how they let a refused one in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from include.market_simulator import MarketSimulator
from include.mltrading.cli.task import Task, run_task
from include.mltrading.configuration.settings import Settings
from include.mltrading.pipeline.quality import missing_bars, run_quality
from include.mltrading.pipeline.run import Run
from include.mltrading.store.connection import connect
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

Cli = Callable[..., Any]
SPIKE = at(20, 12, 30)
STAMP = SPIKE.isoformat()


def spike(collect: Collect, simulator: MarketSimulator, factor: float = 100.0) -> None:
    collect(FIRST, START)
    simulator.fault("times", factor=factor, start=STAMP, hours=1.0)
    assert collect(TICK).status == "ok"


def test_missing_bars_are_told_by_symbol_and_session(
    collect: Collect, settings: Settings, simulator: MarketSimulator
) -> None:
    collect(FIRST, START)
    simulator.fault("missing_day", day="2026-01-20")
    collect(TICK)
    with connect(settings) as connection:
        found = [str(row) for row in missing_bars(connection, ["AAPL", "MSFT"], TICK)]
        assert found == [
            "AAPL 2026-01-20 1 of 7",
            "MSFT 2026-01-16 0 of 7", "MSFT 2026-01-20 0 of 7", "MSFT 2026-01-21 0 of 1",
        ]  # fmt: skip
        # Nothing is missing before a symbol's first bar, and nothing is due that is not final yet.
        assert missing_bars(connection, ["AAPL"], at(6, 16), sessions=20) == []
        assert [row.expected for row in missing_bars(connection, ["MSFT"], at(20, 11), sessions=1)] == [1]
        late = missing_bars(
            connection, ["MSFT"], at(20, 11), sessions=1, finality_delay=timedelta(minutes=45)
        )
        assert late == []
    simulator.clear_faults()
    collect(TICK)
    with connect(settings) as connection:
        assert missing_bars(connection, ["AAPL"], TICK) == []


def test_an_hour_without_a_trade_is_no_missing_bar_until_it_comes_as_one(
    collect: Collect, settings: Settings, simulator: MarketSimulator
) -> None:
    collect(FIRST, START)
    simulator.fault("nan_rows", every=2)
    assert collect(TICK).status == "ok"
    with connect(settings) as connection:
        assert missing_bars(connection, ["AAPL"], TICK) == []
        assert missing_bars(connection, ["AAPL"], TICK, quiet_too=True) != []
    simulator.clear_faults()
    collect(TICK)  # it is asked for again all the same
    with connect(settings) as connection:
        assert missing_bars(connection, ["AAPL"], TICK, quiet_too=True) == []


def test_a_bar_that_was_missing_for_long_is_asked_for_again_at_the_first_tick_of_a_session(
    collect: Collect, database: str, simulator: MarketSimulator
) -> None:
    simulator.fault("missing_day", day="2026-01-06")
    for tick, start in ((FIRST, START), (at(22, 10), None)):
        assert collect(tick, start).status == "ok"
    simulator.clear_faults()
    collect(at(22, 11))
    assert at(6, 9, 30) not in stored(database)
    collect(at(23, 11))
    assert_same(stored(database), truth(at(23, 11)))


def test_a_runs_summary_tells_what_is_missing_refused_and_restated(
    collect: Collect, settings: Settings, simulator: MarketSimulator, capsys: pytest.CaptureFixture[str]
) -> None:
    spike(collect, simulator)
    run = Run("dag", "run-1", 1, TICK)  # the second of the fixture's runs
    quality = run_quality(settings, run, ["AAPL"], timedelta())
    assert (quality.refused, [str(row) for row in quality.missing]) == (
        {"AAPL": 1},
        ["AAPL 2026-01-20 6 of 7"],
    )
    assert run_task(Task("publish_bars", run, False, ["AAPL"]), settings) == 0
    printed = capsys.readouterr().out
    assert "missing bars of the last 3 sessions: AAPL 2026-01-20 6 of 7" in printed
    assert "refused bars, now in quarantine: AAPL 1" in printed
    assert printed.splitlines()[-1].startswith("collect_symbol: 1 of 1 symbols served")
    simulator.clear_faults()
    simulator.fault("split", ex_date="2026-01-22", ratio=4, early=True)
    collect(LATER)
    quality = run_quality(settings, Run("dag", "run-2", 1, LATER), ["AAPL"], timedelta())
    assert (quality.refused, quality.missing) == ({}, [])
    assert str(quality.splits[0]).startswith("AAPL 4 for 1 on 2026-01-22, ")


def test_check_tells_what_is_missing_and_refused(
    cli: Cli, collect: Collect, database: str, simulator: MarketSimulator
) -> None:
    spike(collect, simulator)
    finished = cli("check", "--json", MLTRADING_DATABASE_URL=database)
    assert finished.document["quarantined_bars"] == 1
    # The real clock is far from the simulator's: all of the last sessions is missing.
    sessions = {row["day"]: row for row in finished.document["missing_bars"] if row["symbol"] == "AAPL"}
    assert len(sessions) >= 9
    assert all(row["stored"] == 0 < row["expected"] for row in sessions.values())
    assert "1 refused bars" in cli("check", MLTRADING_DATABASE_URL=database).out


def test_a_released_bar_is_stored_and_the_vendor_has_no_say_in_it(
    cli: Cli, collect: Collect, database: str, simulator: MarketSimulator
) -> None:
    spike(collect, simulator)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("UPDATE symbol_state SET stale_from = NULL")
    listed = cli("quarantine", "list", "--symbol", "AAPL", MLTRADING_DATABASE_URL=database)
    assert listed.out.splitlines()[-1] == "1 refused bars"
    assert "the next bars take back" in listed.out
    released = cli(
        "quarantine", "release", "--symbol", "AAPL", "--timestamp", STAMP, MLTRADING_DATABASE_URL=database
    )
    assert (released.code, released.err) == (0, "")
    wanted = truth(TICK)
    wanted[SPIKE] = (*(price * 100 for price in wanted[SPIKE][:4]), wanted[SPIKE][4])
    assert_same(stored(database), wanted)
    assert rows(database, "SELECT stale_from FROM symbol_state") == [(SPIKE,)]
    collect(TICK)
    simulator.clear_faults()
    collect(TICK)
    assert_same(stored(database), wanted)
    assert cli("quarantine", "list", MLTRADING_DATABASE_URL=database).out == "0 refused bars\n"
    again = cli(
        "quarantine", "release", "--symbol", "AAPL", "--timestamp", STAMP, MLTRADING_DATABASE_URL=database
    )
    assert (again.code, "was released already" in again.err) == (2, True)


def test_a_bar_that_the_table_cannot_take_stays_in_quarantine_with_a_reason(
    cli: Cli, collect: Collect, database: str, simulator: MarketSimulator
) -> None:
    collect(FIRST, START)
    simulator.fault("nan_rows", fields="close", every=2)
    collect(TICK)
    before = stored(database)
    start = quarantined(database)[-1][0]
    refused = cli(
        "quarantine", "release", "--symbol", "AAPL", "--timestamp", start.isoformat(),
        MLTRADING_DATABASE_URL=database,
    )  # fmt: skip
    assert refused.code == 1
    assert "cannot be released: a price is missing or not finite" in refused.err
    assert stored(database) == before


def test_a_bar_from_before_a_split_is_not_released_on_the_old_basis(
    cli: Cli, collect: Collect, database: str, simulator: MarketSimulator
) -> None:
    spike(collect, simulator)
    simulator.clear_faults()
    simulator.fault("missing_day", day="2026-01-20")
    simulator.fault("split", ex_date="2026-01-22", ratio=4, early=True)
    assert collect(LATER).status == "ok"
    refused = cli(
        "quarantine", "release", "--symbol", "AAPL", "--timestamp", STAMP, MLTRADING_DATABASE_URL=database
    )
    assert (refused.code, "a split has been applied since" in refused.err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--symbol", "AAPL"), "needs one --symbol and a --timestamp"),
        (("--symbol", "AAPL,MSFT", "--timestamp", STAMP), "needs one --symbol"),
        (("--symbol", "AAPL", "--timestamp", "noon"), "--timestamp 'noon'"),
        (("--symbol", "AAPL", "--timestamp", STAMP), "no such bar in quarantine"),
    ],
)
def test_a_release_of_nothing_is_bad_usage(
    cli: Cli, database: str, arguments: tuple[str, ...], words: str
) -> None:
    finished = cli("quarantine", "release", *arguments, MLTRADING_DATABASE_URL=database)
    assert (finished.code, words in finished.err) == (2, True)


def test_two_refused_bars_of_one_hour_are_told_apart_by_id(
    cli: Cli, collect: Collect, database: str, simulator: MarketSimulator
) -> None:
    collect(FIRST, START)
    for factor in (100.0, 50.0):
        simulator.clear_faults()
        simulator.fault("times", factor=factor, start=STAMP, hours=1.0)
        collect(TICK)
    ambiguous = cli(
        "quarantine", "release", "--symbol", "AAPL", "--timestamp", STAMP, MLTRADING_DATABASE_URL=database
    )
    assert (ambiguous.code, "choose one with --id" in ambiguous.err) == (2, True)
    listed = cli("quarantine", "list", "--json", MLTRADING_DATABASE_URL=database).document
    wanted = next(row for row in listed if row["reason"].startswith("a jump of 50"))
    chosen = cli(
        "quarantine", "release", "--symbol", "AAPL", "--timestamp", STAMP, "--id", wanted["id"],
        MLTRADING_DATABASE_URL=database,
    )  # fmt: skip
    assert chosen.code == 0
    assert stored(database)[SPIKE][3] == pytest.approx(truth(TICK)[SPIKE][3] * 50, rel=1e-6)
