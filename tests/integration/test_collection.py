"""Collection as the tasks and the command line do it: the real yfinance, over HTTP, into PostgreSQL."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from include.market_simulator import MarketSimulator, bars
from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import SchemaError
from include.mltrading.market.calendar import NEW_YORK, grid, served_bars
from include.mltrading.pipeline.batch import run_batch
from include.mltrading.pipeline.child import Limits
from include.mltrading.pipeline.collect import Collection
from include.mltrading.pipeline.publish import publish, tally, verify
from include.mltrading.pipeline.run import Run
from include.mltrading.pipeline.runner import Outcome
from include.mltrading.pipeline.steps import COLLECT
from include.mltrading.pipeline.window import Window
from include.mltrading.store import ledger
from include.mltrading.store.connection import connect
from tests.round_trips import counted

pytestmark = [
    pytest.mark.integration,
    # The simulator's threads live in this process; the runner's own process has none.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

SEED = 7
TICK = datetime(2026, 1, 21, 11, tzinfo=NEW_YORK).astimezone(UTC)  # a Wednesday, 11:00
LIMITS = Limits(30, 30, 30, 448)

Collect = Callable[..., list[Outcome]]


@pytest.fixture
def collect(settings: Settings, simulator: MarketSimulator) -> Collect:
    """collect("AAPL", …, tick=…) does what the task of a scheduled run does at that tick."""

    def call(
        *symbols: str, tick: datetime = TICK, sessions: int = 3, try_number: int = 1, backfill: bool = False
    ) -> list[Outcome]:
        run = Run("dag", f"run-{tick.isoformat()}", try_number, tick, backfill)
        pointed = dataclasses.replace(settings, yahoo_url=simulator.url, yahoo_requests_per_second=1000.0)
        work = Collection(pointed, run, Window(tick, sessions=sessions), timedelta(), retry_seconds=0.05)
        return run_batch(pointed, run, COLLECT, symbols, work, limits=LIMITS, concurrency=2)

    return call


def rows(database: str, sql: str) -> list[tuple[object, ...]]:
    with psycopg.connect(database) as connection:
        return connection.execute(sql).fetchall()  # type: ignore[arg-type]


def truth(symbol: str, start: datetime, end: datetime) -> list[tuple[object, ...]]:
    return [
        (bar.timestamp, bar.open, bar.high, bar.low, bar.close, bar.volume)
        for bar in bars(SEED, symbol, start, end)
    ]


def test_a_new_symbol_gets_a_year_of_exactly_the_vendors_bars(collect: Collect, database: str) -> None:
    [outcome] = collect("AAPL")
    assert outcome.status == "ok", outcome.error
    stored = rows(
        database,
        "SELECT timestamp, open, high, low, close, volume FROM market_data WHERE is_final ORDER BY timestamp",
    )
    start = TICK - timedelta(days=366)
    final = [start for start, end in served_bars(start, TICK) if end <= TICK]
    assert [row[0] for row in stored] == final
    assert len(final) > 1700
    assert stored == [row for row in truth("AAPL", start, TICK) if row[0] in set(final)]
    assert outcome.rows_written == len(final)


def test_a_run_stores_only_what_had_ended_by_its_tick(collect: Collect, database: str) -> None:
    collect("AAPL")
    newest = rows(database, "SELECT timestamp, is_final FROM market_data ORDER BY timestamp DESC LIMIT 1")
    # At 11:00 the bar of 9:30 has ended and that of 10:30 runs: a repeated past stores no running bar.
    assert newest == [(datetime(2026, 1, 21, 14, 30, tzinfo=UTC), True)]


def test_a_live_run_stores_the_running_bar_as_provisional(
    collect: Collect, database: str, simulator: MarketSimulator
) -> None:
    from include.mltrading.market.calendar import last_sessions

    # The newest moment within a session at which a bar was running, seen an instant later.
    session = last_sessions(1, datetime.now(UTC) - timedelta(hours=1))[-1]
    moment = min(datetime.now(UTC), session.close) - timedelta(minutes=20)
    live = Run("dag", "live", 1, moment)
    simulator.set_clock(moment)
    collect("AAPL", tick=moment)
    provisional = rows(database, "SELECT timestamp FROM market_data WHERE NOT is_final")
    running = [start for start, end in grid(session.open, session.close).items() if start < moment < end]
    assert provisional == ([(running[0],)] if live.is_live() else [])


def test_a_window_into_the_future_makes_no_running_bar_final(
    collect: Collect, database: str, simulator: MarketSimulator
) -> None:
    # Whatever the hour of this test: only bars that have really ended may be final.
    collect("AAPL", tick=datetime.now(UTC) + timedelta(days=200))
    final = [row[0] for row in rows(database, "SELECT timestamp FROM market_data WHERE is_final")]
    now = datetime.now(UTC)
    ended = [start for start, end in served_bars(now - timedelta(days=100), now) if end <= now]
    assert final
    assert max(final) <= max(ended)  # type: ignore[type-var]


def test_the_same_tick_again_writes_nothing_and_revises_nothing(collect: Collect, database: str) -> None:
    collect("AAPL")
    [again] = collect("AAPL", try_number=2)
    assert (again.status, again.rows_written) == ("ok", 0)
    assert rows(database, "SELECT count(*) FROM bar_revisions") == [(0,)]


def test_an_outage_heals_itself(collect: Collect, database: str) -> None:
    collect("AAPL", tick=TICK - timedelta(days=9))
    collect("AAPL", tick=TICK)
    start = TICK - timedelta(days=9 + 366)
    expected = [start for start, end in served_bars(start, TICK) if end <= TICK]
    stored = rows(database, "SELECT timestamp FROM market_data WHERE is_final ORDER BY timestamp")
    assert [row[0] for row in stored] == expected


def test_an_old_tick_after_a_newer_one_changes_nothing(collect: Collect, database: str) -> None:
    collect("AAPL", tick=TICK)
    before = rows(database, "SELECT * FROM market_data ORDER BY timestamp")
    collect("AAPL", tick=TICK - timedelta(hours=18))
    assert rows(database, "SELECT * FROM market_data ORDER BY timestamp") == before


def test_before_the_open_the_window_is_the_last_three_opened_sessions(
    collect: Collect, database: str, simulator: MarketSimulator
) -> None:
    collect("AAPL", tick=TICK)  # the year; what follows is a steady state
    nine = datetime(2026, 1, 22, 9, tzinfo=NEW_YORK).astimezone(UTC)
    [outcome] = collect("AAPL", tick=nine)
    # From 11:00 to the close of the day before: the bars of 10:30 to 15:30.
    assert (outcome.status, outcome.rows_written) == ("ok", 6)


def test_one_symbol_that_the_vendor_does_not_know_hurts_no_other(collect: Collect, database: str) -> None:
    outcomes = {outcome.symbol: outcome for outcome in collect("AAPL", "ZZTOP", "MSFT")}
    assert [outcomes[symbol].status for symbol in ("AAPL", "ZZTOP", "MSFT")] == ["ok", "error", "ok"]
    assert "ZZTOP" in (outcomes["ZZTOP"].error or "")
    assert "correct or remove the symbol" in (outcomes["ZZTOP"].error or "")
    ledger = rows(database, "SELECT symbol, status, error IS NULL FROM processing_history ORDER BY symbol")
    assert ledger == [("AAPL", "ok", True), ("MSFT", "ok", True), ("ZZTOP", "error", False)]


def test_an_empty_answer_for_an_open_session_is_a_failure(
    collect: Collect, database: str, simulator: MarketSimulator
) -> None:
    collect("AAPL", tick=TICK - timedelta(days=1))
    before = rows(database, "SELECT * FROM market_data ORDER BY timestamp")
    simulator.fault("empty", symbol="AAPL")
    [outcome] = collect("AAPL")
    assert outcome.status == "error"
    assert rows(database, "SELECT * FROM market_data ORDER BY timestamp") == before


def test_a_vendor_that_is_down_costs_nothing_that_is_stored(
    collect: Collect, database: str, simulator: MarketSimulator
) -> None:
    collect("AAPL", tick=TICK - timedelta(days=1))
    before = rows(database, "SELECT * FROM market_data ORDER BY timestamp")
    simulator.close()
    [outcome] = collect("AAPL")
    assert outcome.status == "error"
    assert "127.0.0.1" in (outcome.error or "")
    assert rows(database, "SELECT * FROM market_data ORDER BY timestamp") == before


def test_refused_bars_are_kept_aside_and_the_rest_is_stored(
    collect: Collect, database: str, simulator: MarketSimulator
) -> None:
    simulator.fault("nan_rows", symbol="AAPL", fields="close", every=100)
    [outcome] = collect("AAPL")
    assert outcome.status == "ok", outcome.error
    [(refused,)] = rows(database, "SELECT count(*) FROM quarantined_bars")
    start = TICK - timedelta(days=366)
    expected = sum(end <= TICK for _, end in served_bars(start, TICK))
    assert isinstance(refused, int)
    assert refused > 10
    assert outcome.rows_written == expected - refused


def test_a_retry_redoes_only_what_failed(collect: Collect, database: str, simulator: MarketSimulator) -> None:
    simulator.fault("status", symbol="MSFT", status=500)
    assert {o.symbol: o.status for o in collect("AAPL", "MSFT")} == {"AAPL": "ok", "MSFT": "error"}
    simulator.clear_faults()
    assert [(o.symbol, o.status) for o in collect("AAPL", "MSFT", try_number=2)] == [("MSFT", "ok")]
    ledger = rows(database, "SELECT symbol, try, status FROM processing_history ORDER BY symbol, try")
    assert ledger == [("AAPL", 1, "ok"), ("MSFT", 1, "error"), ("MSFT", 2, "ok")]


def test_a_cleared_task_that_had_succeeded_repeats_all_of_it(collect: Collect, database: str) -> None:
    collect("AAPL", "MSFT")
    assert {o.symbol for o in collect("AAPL", "MSFT", try_number=2)} == {"AAPL", "MSFT"}


def test_splits_and_dividends_are_recorded_once(
    collect: Collect, database: str, simulator: MarketSimulator
) -> None:
    simulator.fault("dividend", symbol="AAPL", ex_date="2026-01-20", amount=0.26)
    collect("AAPL")
    collect("AAPL", try_number=2)
    assert rows(database, "SELECT symbol, ex_date::text, kind, value FROM corporate_actions") == [
        ("AAPL", "2026-01-20", "dividend", 0.26)
    ]


def test_the_ledger_tells_when_what_and_how_much(collect: Collect, database: str) -> None:
    collect("AAPL")
    [(window_end, took, rows_written, cpu, memory, correlation)] = rows(
        database,
        "SELECT window_end, finished_at >= started_at, rows_written, cpu_seconds, peak_memory_bytes, "
        "correlation_id FROM processing_history",
    )
    assert window_end == TICK
    assert took
    assert rows_written == rows(database, "SELECT count(*) FROM market_data")[0][0]
    assert isinstance(cpu, float)
    assert cpu > 0
    assert isinstance(memory, int)
    assert memory > 1_000_000
    assert correlation == Run("dag", f"run-{TICK.isoformat()}", 1, TICK).correlation_id


def test_an_old_schema_is_refused_before_anything_is_asked(
    empty_database: str, simulator: MarketSimulator
) -> None:
    settings = Settings(database_url=empty_database, yahoo_url=simulator.url)
    run = Run("dag", "run", 1, TICK)
    with pytest.raises(SchemaError, match="migrate"):
        run_batch(
            settings, run, COLLECT, ["AAPL"],
            Collection(settings, run, Window(TICK, sessions=3), timedelta()), limits=LIMITS,
        )  # fmt: skip
    assert simulator.statistics()["total"] == 0


def test_publishing_needs_its_share_and_verifying_needs_all(collect: Collect, settings: Settings) -> None:
    collect("AAPL", "MSFT", "ZZTOP")
    run = Run("dag", f"run-{TICK.isoformat()}", 1, TICK)
    asked = ["AAPL", "MSFT", "ZZTOP", "NEVER"]
    counted = tally(settings, run, COLLECT, asked)
    assert counted.good == ["AAPL", "MSFT"]
    assert counted.failed["NEVER"] == "never started"
    assert "ZZTOP" in counted.failed["ZZTOP"]
    assert publish(settings, run, COLLECT, asked, 0.5) == counted
    with pytest.raises(Exception, match=r"75% are needed.*2 of 4 symbols served.*ZZTOP"):
        publish(settings, run, COLLECT, asked, 0.75)
    with pytest.raises(Exception, match="NEVER"):
        verify(settings, run, [COLLECT], asked)
    assert verify(settings, run, [COLLECT], ["AAPL", "MSFT"])[0].failed == {}


def test_a_symbol_that_is_known_takes_no_more_round_trips_than_its_statements_need(
    collect: Collect,
    settings: Settings,
    simulator: MarketSimulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    collect("AAPL", tick=TICK - timedelta(hours=1))
    pointed = dataclasses.replace(settings, yahoo_url=simulator.url, yahoo_requests_per_second=1000.0)
    run = Run("dag", "run", 1, TICK)
    with connect(settings) as connection, counted(connection, tmp_path) as trips:
        ledger.claim(connection, run.attempt(COLLECT), ["AAPL"])
        monkeypatch.setattr("include.mltrading.pipeline.collect.connect", lambda _: nullcontext(connection))
        assert Collection(pointed, run, Window(TICK, sessions=3), timedelta())("AAPL", lambda: None) == 1
    # Where to start 5, the vendor's session 1, the turn 3, its end 1, the transaction 17; and the claim here.
    assert trips[0] <= 28
