"""The parts of the monitor's snapshot say what the planted rows say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from include.mltrading.configuration.deployments import Deployments
from include.mltrading.market.calendar import bars_of, last_sessions
from include.mltrading.monitor.figures import Success
from include.mltrading.monitor.freshness import COUNT_TO
from include.mltrading.monitor.runs import FinishedRuns
from include.mltrading.monitor.snapshot import snapshot
from include.mltrading.store.connection import Connection
from tests.integration.monitoring import (
    COLLECTION,
    DAY,
    DUE,
    EXPECTED,
    FEATURES,
    HOUR,
    NOW,
    ONDEMAND,
    look,
    plant_bars,
    plant_state,
    plant_try,
)
from tests.integration.monitoring import connection as connection
from tests.integration.monitoring import deployments as deployments

pytestmark = pytest.mark.integration


# Freshness ----------------------------------------------------------------------------------------------


def test_freshness_is_counted_in_the_exchanges_bars(connection: Connection) -> None:
    friday = datetime(2026, 3, 6, 20, 30, tzinfo=UTC)
    plant_bars(connection, "FRESH", DUE)
    # Begins late: nothing is missing before its first bar.
    plant_bars(connection, "NEW", DUE[-3:])
    plant_bars(connection, "HOLES", [start for start in DUE if start not in (DUE[5], DUE[6], DUE[-2])])
    plant_bars(connection, "LATE", [start for start in DUE if start <= EXPECTED - 2 * HOUR])
    plant_bars(connection, "STALE", [start for start in DUE if start <= EXPECTED - 3 * HOUR])
    # From Friday's last bar to Wednesday's expected one: 7 + 7 + 6 bars; the weekend has none.
    plant_bars(connection, "OLD", [start for start in DUE if start <= friday])
    plant_bars(connection, "OLD", [EXPECTED], final=False)
    # Its only bar is older than what is looked through.
    plant_bars(connection, "OLDER", [DUE[0] - 400 * DAY])
    symbols = ["FRESH", "NEW", "HOLES", "LATE", "STALE", "OLD", "OLDER", "NONE"]

    found = look(connection, symbols, "freshness")

    assert found.expected_bar == EXPECTED
    states = {s.symbol: (s.newest_bar, s.bars_behind, s.age_hours, s.freshness) for s in found.symbols}
    older = states.pop("OLDER")
    assert states == {
        "FRESH": (EXPECTED, 0, 0.25, "fresh"),
        "NEW": (EXPECTED, 0, 0.25, "fresh"),
        "HOLES": (EXPECTED, 0, 0.25, "fresh"),
        "LATE": (EXPECTED - 2 * HOUR, 2, 2.25, "late"),
        "STALE": (EXPECTED - 3 * HOUR, 3, 3.25, "stale"),
        "OLD": (friday, 20, 19.25, "stale"),
        "NONE": (None, None, None, "empty"),
    }
    assert older[1] > 1500
    assert older[3] == "silent"
    missing = {}
    for symbol in symbols:
        stored = {
            row[0]
            for row in connection.execute(
                "SELECT timestamp FROM market_data WHERE symbol = %s AND is_final", (symbol,)
            )
        }
        first = min(stored, default=DUE[0])
        missing[symbol] = len([start for start in DUE if start >= first and start not in stored])
    assert {s.symbol: s.missing for s in found.symbols} == missing
    assert missing["HOLES"] == 3
    assert missing["NEW"] == 0
    assert found.totals == {
        "symbols": 8, "fresh": 3, "late": 1, "stale": 2, "silent": 1, "empty": 1,
        "features_behind": 7, "missing": 6,
    }  # fmt: skip


def test_a_stored_bar_that_nobody_expects_stands_in_for_none_that_is_missing(connection: Connection) -> None:
    now = datetime(2026, 12, 1, 23, tzinfo=UTC)
    due = [start for day in last_sessions(10, now) for start, _ in bars_of(day)]
    half = datetime(2026, 11, 27, 17, 30, tzinfo=UTC)  # of a half day, 12:30 in New York
    assert half not in due
    plant_bars(connection, "AAPL", [half, *due[:-3], *due[-2:]])
    [found] = look(connection, ["AAPL"], "freshness", now=now).symbols
    assert found.missing == 1


def test_an_hour_in_which_nobody_traded_is_no_missing_bar(connection: Connection) -> None:
    plant_bars(connection, "THIN", DUE[:5] + DUE[7:])
    # One is known to be quiet, and what has come as a bar since is none any more.
    connection.execute(
        "INSERT INTO symbol_state (symbol, quiet_hours) VALUES ('THIN', %s)", ([DUE[4], DUE[5]],)
    )
    [found] = look(connection, ["THIN"], "freshness").symbols
    assert found.missing == 1


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        # Sunday: Friday's last bar, which starts at 15:30 in New York.
        ("2026-03-08T12:00", "2026-03-06T20:30"),
        # Before the first bar of the day has ended: the last of the day before.
        ("2026-03-11T14:29", "2026-03-10T19:30"),
        ("2026-03-11T14:30", "2026-03-11T13:30"),
        # The half day after Thanksgiving ends at 13:00 in New York; the vendor has no bar of its last half.
        ("2026-11-27T23:00", "2026-11-27T16:30"),
    ],
)
def test_the_expected_bar_follows_the_exchanges_calendar(
    connection: Connection, now: str, expected: str
) -> None:
    newest = datetime.fromisoformat(f"{expected}+00:00")
    connection.execute(
        "INSERT INTO market_data (symbol, timestamp, open, high, low, close, volume, is_final, source)"
        " VALUES ('AAPL', %s, 1, 1, 1, 1, 1, true, 'simulated')",
        (newest,),
    )
    found = look(connection, ["AAPL"], "freshness", now=datetime.fromisoformat(f"{now}+00:00"))

    assert found.expected_bar == newest
    assert [(symbol.bars_behind, symbol.freshness) for symbol in found.symbols] == [(0, "fresh")]


def test_features_are_behind_by_the_final_bars_that_are_stale(connection: Connection) -> None:
    for symbol in ("DONE", "PART", "OLDER", "NEW"):
        plant_bars(connection, symbol, DUE[-5:])
    plant_bars(connection, "PART", [EXPECTED + HOUR], final=False)
    plant_bars(connection, "MANY", [DUE[0] - index * HOUR for index in range(COUNT_TO + 5)])
    plant_state(connection, "DONE", None)
    plant_state(connection, "PART", EXPECTED - HOUR)
    plant_state(connection, "OLDER", None, version="0")

    found = look(connection, ["DONE", "PART", "OLDER", "NEW", "MANY"], "freshness")

    behind = {symbol.symbol: symbol.features_behind for symbol in found.symbols}
    assert behind == {"DONE": 0, "PART": 2, "OLDER": 5, "NEW": 5, "MANY": COUNT_TO}


# Pipelines ----------------------------------------------------------------------------------------------


def test_the_last_run_is_the_one_with_the_latest_tick_and_counts_each_symbols_latest_try(
    connection: Connection,
) -> None:
    # A backfill of the past, started later, does not count as the last run.
    plant_try(connection, "backfill", "AAPL", "error", tick=NOW - 9 * DAY, at=NOW + HOUR)
    plant_try(connection, "run", "AAPL", "ok", rows=21)
    plant_try(connection, "run", "MSFT", "error", at=NOW + timedelta(minutes=1))
    plant_try(connection, "run", "MSFT", "ok", number=2, at=NOW + timedelta(minutes=4), rows=7)
    plant_try(connection, "run", "TSLA", "timeout", at=NOW + timedelta(minutes=2))
    plant_try(connection, "load", "AAPL", "ok", dag_id=ONDEMAND, rows=1750)
    plant_try(connection, "load", "AAPL", "running", dag_id=ONDEMAND, step="compute_features", at=NOW + HOUR)

    found = look(connection, ["AAPL"], "pipelines")

    assert [pipeline.dag_id for pipeline in found] == [ONDEMAND, FEATURES, COLLECTION]
    load, features, collection = (pipeline.last_run for pipeline in found)
    assert features is None
    assert (collection.run_id, collection.tick, collection.state) == ("run", NOW, "failed")
    (step,) = collection.steps
    assert (step.served, step.failed, step.running, step.rows_written) == (2, 1, 0, 28)
    assert (step.started_at, step.finished_at) == (NOW, NOW + timedelta(minutes=4, seconds=30))
    assert collection.seconds == 270
    assert (load.state, load.seconds) == ("running", None)
    assert [(step.step, step.running, step.finished_at is None) for step in load.steps] == [
        ("collect_symbol", 0, False),
        ("compute_features", 1, True),
    ]


def test_what_is_kept_of_finished_runs_gives_way_to_what_happened_since(
    connection: Connection, deployments: Deployments
) -> None:
    finished = FinishedRuns()

    def served() -> list[tuple[int, int, int, int]]:
        found = snapshot(connection, deployments, ["AAPL"], NOW, ["pipelines"], finished)
        fresh = snapshot(connection, deployments, ["AAPL"], NOW, ["pipelines"])
        assert found.pipelines == fresh.pipelines
        connection.read_only = False
        run = fresh.pipelines[2].last_run if fresh.pipelines else None
        return [(s.served, s.failed, s.running, s.rows_written) for s in run.steps] if run else []

    plant_try(connection, "run", "AAPL", "ok", rows=21)
    plant_try(connection, "run", "MSFT", "error", at=NOW + timedelta(minutes=1))
    assert served() == [(1, 1, 0, 21)]
    # What is over is not counted anew: an edit that no program makes is not seen.
    connection.execute("UPDATE processing_history SET rows_written = 99 WHERE symbol = 'AAPL'")
    kept = snapshot(connection, deployments, ["AAPL"], NOW, ["health"], finished).health
    connection.read_only = False
    assert kept is not None
    assert kept.growth[0].day == 21
    # The run is cleared: a symbol is tried again, and then served.
    plant_try(connection, "run", "MSFT", "running", number=2, at=NOW + timedelta(minutes=9))
    assert served() == [(1, 0, 1, 99)]
    connection.execute(
        "UPDATE processing_history SET status = 'ok', rows_written = 7, finished_at = now()"
        " WHERE status = 'running'"
    )
    assert served() == [(2, 0, 0, 106)]
    # A third try of a symbol that has had two.
    plant_try(connection, "run", "MSFT", "timeout", number=3, at=NOW + timedelta(minutes=20))
    assert served() == [(1, 1, 0, 99)]


def test_success_counts_the_runs_that_are_over_by_when_they_began(connection: Connection) -> None:
    for number, (age, results) in enumerate([
        (HOUR, ["ok", "ok"]), (5 * HOUR, ["ok", "error"]), (2 * DAY, ["ok", "ok"]),
        (3 * DAY, ["timeout", "crashed"]),
        (8 * DAY, ["error", "error"]), (timedelta(minutes=5), ["ok", "running"]),
    ]):  # fmt: skip
        for symbol, status in zip(("AAPL", "MSFT"), results, strict=True):
            plant_try(connection, f"run{number}", symbol, status, tick=NOW - age, at=NOW - age)
    # A symbol that was served at the second try was served.
    plant_try(connection, "run1", "MSFT", "ok", number=2, tick=NOW - 5 * HOUR, at=NOW - 5 * HOUR)

    collection = look(connection, ["AAPL"], "pipelines")[2]

    assert collection.day == Success(2, 2, 4, 4, 1.0)
    assert collection.week == Success(4, 3, 8, 6, 0.75)
    plain = connection.execute(
        "SELECT count(DISTINCT run_id), count(*), count(*) FILTER (WHERE status = 'ok') FROM ("
        " SELECT DISTINCT ON (run_id, symbol) run_id, status FROM processing_history"
        " WHERE started_at >= %s AND run_id <> 'run5' ORDER BY run_id, symbol, try DESC) AS latest",
        (NOW - 7 * DAY,),
    ).fetchone()
    assert plain == (collection.week.runs, collection.week.symbols, collection.week.symbols_ok)


def test_the_next_tick_follows_the_schedule_in_its_zone(connection: Connection) -> None:
    def ticks(now: str) -> list[str | None]:
        found = look(connection, ["AAPL"], "pipelines", now=datetime.fromisoformat(f"{now}+00:00"))
        return [p.next_tick and f"{p.next_tick:%Y-%m-%dT%H:%M}" for p in found]

    # Friday after the last tick of the day: Monday, by then in summer time.
    assert ticks("2026-03-06T21:30") == [None, "2026-03-09T13:05", "2026-03-09T13:00"]
    assert ticks("2026-03-11T19:45") == [None, "2026-03-11T20:05", "2026-03-11T20:00"]


# Performance --------------------------------------------------------------------------------------------


def test_run_times_of_the_last_thirty_runs_and_what_each_symbol_took(
    connection: Connection, deployments: Deployments
) -> None:
    for number in range(33):
        tick = NOW - (32 - number) * HOUR
        plant_try(connection, f"run{number:02}", "AAPL", "ok", tick=tick, at=tick, seconds=100 + number)
        plant_try(
            connection, f"run{number:02}", "MSFT", "ok", tick=tick, at=tick, seconds=1, cpu=0.5, memory=7
        )
    plant_try(connection, "run32", "MSFT", "error", number=2, seconds=200, cpu=3, memory=40_000_000)
    plant_try(connection, "run32", "TSLA", "running")

    found = look(connection, ["AAPL"], "performance")

    timing = found.pipelines[2]
    assert timing.dag_id == COLLECTION
    assert (timing.expected_seconds, timing.limit_seconds) == (8 * 60, 12 * 60)
    assert [run.run_id for run in timing.runs] == [f"run{number:02}" for number in range(3, 33)]
    assert [run.seconds for run in timing.runs] == [*range(103, 132), None]
    costs = [(c.symbol, c.status, c.seconds, c.cpu_seconds, c.peak_memory_bytes) for c in found.costs]
    assert costs == [("MSFT", "error", 200, 3, 40_000_000), ("AAPL", "ok", 132, None, None)]
    assert {(cost.dag_id, cost.run_id, cost.step) for cost in found.costs} == {
        (COLLECTION, "run32", "collect_symbol")
    }


# Health -------------------------------------------------------------------------------------------------


def test_health_is_what_the_database_says_of_itself(connection: Connection) -> None:
    plant_try(connection, "run1", "AAPL", "ok", rows=21, at=NOW - HOUR, tick=NOW - HOUR)
    plant_try(connection, "run2", "AAPL", "ok", rows=7, at=NOW - 2 * DAY, tick=NOW - 2 * DAY)
    plant_try(connection, "f", "AAPL", "ok", dag_id=FEATURES, step="compute_features", rows=5, at=NOW - HOUR)
    connection.execute(
        "INSERT INTO quarantined_bars (symbol, timestamp, reason, payload_hash, payload, correlation_id,"
        " first_seen, released_at) VALUES"
        " ('AAPL', %(bar)s, 'high below low', 'a', '{}', 'c', %(now)s, NULL),"
        " ('AAPL', %(bar)s, 'negative price', 'b', '{}', 'c', %(old)s, NULL),"
        " ('MSFT', %(bar)s, 'negative price', 'c', '{}', 'c', %(now)s, %(now)s)",
        {"bar": EXPECTED, "now": NOW - HOUR, "old": NOW - 3 * DAY},
    )
    connection.execute(
        "INSERT INTO request_clock (vendor, next_slot, not_before, refusals) VALUES ('yahoo', %s, %s, 2)",
        (NOW, NOW + HOUR),
    )
    connection.execute(
        "INSERT INTO request_queue (waiter, vendor, priority, alive_until) VALUES"
        " (gen_random_uuid(), 'yahoo', 1, clock_timestamp() + interval '1 minute'),"
        " (gen_random_uuid(), 'yahoo', 1, clock_timestamp() - interval '1 minute')"
    )
    for key, severity, over in (("a", "info", None), ("b", "critical", None), ("c", "critical", NOW)):
        connection.execute(
            "INSERT INTO alerts (key, condition, kind, severity, subject, details, resolved_at)"
            " VALUES (%s, %s, 'data_stale', %s, %s, '{}', %s)",
            (key, key, severity, f"about {key}", over),
        )

    found = look(connection, ["AAPL"], "health")

    row = connection.execute(
        "SELECT pg_database_size(current_database()), rolconnlimit, pg_total_relation_size('market_data')"
        " FROM pg_roles WHERE rolname = current_user"
    ).fetchone()
    assert row is not None
    assert found.database_bytes == pytest.approx(row[0], rel=0.1)
    assert (found.connections_limit, found.connections) == (row[1], 1)
    assert {table.name: table.bytes for table in found.tables}["market_data"] == row[2]
    assert [(growth.step, growth.day, growth.week) for growth in found.growth] == [
        ("collect_symbol", 21, 28), ("compute_features", 5, 5),
    ]  # fmt: skip
    assert 0 < found.memory.free < found.memory.total
    assert all(0 < disk.free < disk.total for disk in found.disks)
    (limit,) = found.rate_limits
    assert (limit.vendor, limit.paused_until, limit.refusals, limit.waiting) == ("yahoo", NOW + HOUR, 2, 1)
    assert [(alert.severity, alert.subject) for alert in found.alerts] == [
        ("critical", "about b"), ("info", "about a"),
    ]  # fmt: skip
    assert found.alerts_open == 2
    assert (found.quarantined, found.quarantined_day) == (2, 1)


def test_the_last_backup_is_the_last_that_was_verified(connection: Connection) -> None:
    assert look(connection, ["AAPL"], "health").last_backup is None
    for days, error in ((3, None), (2, None), (1, "the disk is full")):
        at = NOW - days * DAY
        connection.execute(
            "INSERT INTO backup_history (started_at, finished_at, file, bytes, rows, verified_at, error)"
            " VALUES (%s, %s, 'f', 1, 1, %s, %s)",
            (at, at, None if error else at, error),
        )
    assert look(connection, ["AAPL"], "health").last_backup == NOW - 2 * DAY
