"""The monitor's snapshot says what the planted rows say; each number is compared with plain SQL."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from include.mltrading.configuration.deployments import Deployments, load_deployments
from include.mltrading.errors import SchemaError
from include.mltrading.features.definitions import FEATURE_VERSION
from include.mltrading.market.calendar import bars_of, last_sessions
from include.mltrading.monitor.figures import Part, Snapshot, Success
from include.mltrading.monitor.freshness import COUNT_TO
from include.mltrading.monitor.health import health
from include.mltrading.monitor.runs import FinishedRuns
from include.mltrading.monitor.snapshot import snapshot
from include.mltrading.monitor.symbol import SymbolPage, symbol_page
from include.mltrading.store.connection import Connection
from include.mltrading.store.pool import ReadPool, SlowDatabaseError

pytestmark = pytest.mark.integration

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


# The whole ----------------------------------------------------------------------------------------------


def plant_a_bad_day(connection: Connection) -> list[str]:
    """Late, stale, empty, missing, quarantined and failed symbols, runs of all three DAGs; the symbols."""
    plant_bars(connection, "FRESH", DUE)
    plant_bars(connection, "HOLES", [start for start in DUE if start not in (DUE[5], DUE[-2])])
    plant_bars(connection, "LATE", [start for start in DUE if start <= EXPECTED - 2 * HOUR])
    plant_bars(connection, "STALE", DUE[:-20])
    connection.execute(
        "INSERT INTO feature_engineered_data (symbol, timestamp, feature_version) VALUES ('FRESH', %s, '1')",
        (EXPECTED,),
    )
    plant_state(connection, "FRESH", None)
    plant_state(connection, "HOLES", DUE[-3])
    plant_state(connection, "LATE", None, version="0")
    plant_state(connection, "STALE", None)
    connection.execute("INSERT INTO data_source (source) VALUES ('simulated')")
    connection.execute(
        "INSERT INTO quarantined_bars (symbol, timestamp, reason, payload_hash, payload, correlation_id,"
        " first_seen) VALUES ('HOLES', %s, 'high below low', 'a', '{}', 'c', %s)",
        (DUE[5], NOW - HOUR),
    )
    for number, (age, last) in enumerate([(HOUR, "ok"), (26 * HOUR, "error"), (9 * DAY, "ok")]):
        at = NOW - age
        for dag_id, step in ((COLLECTION, "collect_symbol"), (FEATURES, "compute_features")):
            plant = partial(plant_try, connection, f"run{number}", dag_id=dag_id, step=step, tick=at, at=at)
            plant("FRESH", "ok", rows=21, cpu=0.5, memory=10**7)
            plant("HOLES", "timeout", seconds=55)
            plant("HOLES", last, number=2, rows=3, cpu=4, memory=2 * 10**7)
            plant("LATE", "ok" if number else "crashed", seconds=70)
    plant_try(connection, "load", "FRESH", "ok", dag_id=ONDEMAND, rows=1750)
    plant_try(connection, "load", "FRESH", "running", dag_id=ONDEMAND, step="compute_features")
    connection.execute(
        "INSERT INTO request_clock (vendor, next_slot, not_before, refusals) VALUES ('yahoo', %s, %s, 3)",
        (NOW, NOW + HOUR),
    )
    for key, severity in (("a", "warning"), ("b", "critical")):
        connection.execute(
            "INSERT INTO alerts (key, condition, kind, severity, subject, details, opened_at, dag_id, run_id)"
            " VALUES (%s, 'c', 'run_failed', %s, 'subject', '{}', %s, %s, 'run0')",
            (key, severity, NOW, COLLECTION),
        )
    return ["EMPTY", "FRESH", "HOLES", "LATE", "STALE"]


def test_every_number_of_the_snapshot_is_what_plain_sql_says(
    connection: Connection, deployments: Deployments
) -> None:
    """The whole document is compared: a number that is added to it and not counted here is a failure."""
    symbols = plant_a_bad_day(connection)
    # What the server has counted on the way is told now, and not between the two looks at its statistics.
    connection.execute("SELECT pg_stat_force_next_flush()")
    connection.execute("ANALYZE")

    document = json.loads(json.dumps(snapshot(connection, deployments, symbols, NOW).as_document()))

    connection.read_only = False
    plain = connection.cursor(row_factory=dict_row)
    plain.execute(
        "CREATE TEMP VIEW latest AS SELECT DISTINCT ON (dag_id, run_id, step, symbol) * FROM"
        " processing_history ORDER BY dag_id, run_id, step, symbol, try DESC"
    )
    plain.execute(
        "CREATE TEMP VIEW steps AS SELECT dag_id, run_id, step, min(began) AS started_at,"
        " CASE WHEN bool_and(status <> 'running') THEN max(ended) END AS finished_at,"
        " count(*) FILTER (WHERE status = 'ok') AS served,"
        " count(*) FILTER (WHERE status NOT IN ('ok', 'running')) AS failed,"
        " count(*) FILTER (WHERE status = 'running') AS running,"
        " coalesce(sum(rows_written), 0)::bigint AS rows_written, max(window_end) AS tick"
        " FROM latest JOIN (SELECT dag_id, run_id, step, symbol, min(started_at) AS began, max(finished_at)"
        " AS ended FROM processing_history GROUP BY 1, 2, 3, 4) AS tries USING (dag_id, run_id, step, symbol)"
        " GROUP BY dag_id, run_id, step"
    )
    plain.execute(
        "CREATE TEMP VIEW runs AS SELECT dag_id, run_id, max(tick) AS tick,"
        " CASE WHEN sum(running) > 0 THEN 'running' WHEN sum(failed) > 0 THEN 'failed' ELSE 'ok' END"
        " AS state,"
        " min(started_at) AS started_at, CASE WHEN sum(running) = 0 THEN"
        " extract(epoch FROM max(finished_at) - min(started_at))::float8 END AS seconds,"
        " sum(served)::int AS served, sum(failed)::int AS failed FROM steps GROUP BY 1, 2"
    )

    def rows(text: str, *values: Any, **named: Any) -> list[dict[str, Any]]:
        return plain.execute(text, named or values).fetchall()

    def last_run(dag_id: str) -> dict[str, Any]:
        (run,) = rows(
            "SELECT run_id, tick, state, started_at, seconds FROM runs WHERE dag_id = %s"
            " ORDER BY tick DESC LIMIT 1",
            dag_id,
        )
        return run | {
            "steps": rows(
                "SELECT step, started_at, finished_at, served, failed, running, rows_written FROM steps"
                " WHERE dag_id = %s AND run_id = %s ORDER BY started_at, step",
                dag_id, run["run_id"],
            )
        }  # fmt: skip

    def success(dag_id: str, since: datetime) -> dict[str, Any]:
        (found,) = rows(
            "SELECT count(*) AS runs, count(*) FILTER (WHERE state = 'ok') AS runs_ok,"
            " coalesce(sum(served + failed), 0)::int AS symbols, coalesce(sum(served), 0)::int AS symbols_ok,"
            " sum(served)::float8 / sum(served + failed) AS share"
            " FROM runs WHERE dag_id = %s AND state <> 'running' AND started_at >= %s",
            dag_id, since,
        )  # fmt: skip
        return found

    def symbol(name: str, bars_behind: int | None, age: float | None, freshness: str) -> dict[str, Any]:
        (found,) = rows(
            "WITH bars AS (SELECT timestamp FROM market_data WHERE symbol = %(name)s AND is_final)"
            " SELECT %(name)s AS symbol, (SELECT max(timestamp) FROM bars) AS newest_bar,"
            " (SELECT count(*) FROM unnest(%(due)s::timestamptz[]) AS due (start)"
            "  WHERE start NOT IN (SELECT * FROM bars)) AS missing,"
            " (SELECT count(*) FROM bars, symbol_state WHERE symbol = %(name)s"
            "  AND (timestamp >= stale_from OR feature_version <> %(version)s)) AS features_behind",
            name=name,
            due=DUE,
            version=FEATURE_VERSION,
        )
        return found | {"bars_behind": bars_behind, "age_hours": age, "freshness": freshness}

    def one(text: str, *values: Any) -> Any:
        (row,) = rows(text, *values)
        return next(iter(row.values()))

    dag_ids = [ONDEMAND, FEATURES, COLLECTION]
    names = [
        "Complete Data + Features Pipeline",
        "Production Feature Engineering",
        "Yahoo Finance Data Collection",
    ]
    next_ticks = {FEATURES: "2026-03-11T20:05:00+00:00", COLLECTION: "2026-03-11T20:00:00+00:00"}
    minutes = [30, 10, 8]
    written = "SELECT coalesce(sum(rows_written), 0)::int FROM latest WHERE step = %s AND started_at >= %s"
    machine = {name: document["health"].pop(name) for name in ("memory", "disks")}
    # Looking itself makes a new database grow a little.
    size = document["health"].pop("database_bytes")
    assert size == pytest.approx(one("SELECT pg_database_size(current_database())"), rel=0.05)
    assert 0 < machine["memory"]["free"] < machine["memory"]["total"]
    assert document == json.loads(json.dumps(default=datetime.isoformat, obj={
        "as_of": NOW,
        "source": one("SELECT source FROM data_source"),
        "state": "ok",
        "pipelines": [
            {
                "dag_id": dag_id,
                "display_name": name,
                "last_run": last_run(dag_id),
                "day": success(dag_id, NOW - DAY),
                "week": success(dag_id, NOW - 7 * DAY),
                "next_tick": next_ticks.get(dag_id),
            }
            for dag_id, name in zip(dag_ids, names, strict=True)
        ],
        "performance": {
            "pipelines": [
                {
                    "dag_id": dag_id,
                    "display_name": name,
                    "expected_seconds": expected * 60,
                    "limit_seconds": expected * 90,
                    "runs": rows(
                        "SELECT run_id, tick, state, seconds FROM runs WHERE dag_id = %s ORDER BY tick",
                        dag_id,
                    ),
                }
                for dag_id, name, expected in zip(dag_ids, names, minutes, strict=True)
            ],
            "costs": rows(
                "SELECT dag_id, run_id, step, symbol, status, cpu_seconds, peak_memory_bytes,"
                " extract(epoch FROM finished_at - started_at)::float8 AS seconds FROM latest"
                " WHERE (dag_id, run_id) IN (SELECT DISTINCT ON (dag_id) dag_id, run_id FROM runs"
                "  ORDER BY dag_id, tick DESC) AND status <> 'running'"
                " ORDER BY seconds DESC, array_position(%s, dag_id), symbol",
                sorted(dag_ids),
            ),
        },
        "freshness": {
            "expected_bar": EXPECTED,
            "stale_before": EXPECTED - 2 * HOUR,
            "threshold_hours": 2,
            "sessions": 10,
            "count_to": COUNT_TO,
            "totals": {
                "symbols": 5, "fresh": 2, "late": 1, "stale": 1, "empty": 1,
                "features_behind": 2, "missing": 4,
            },
            "symbols": [
                symbol("EMPTY", None, None, "empty"),
                symbol("FRESH", 0, 0.25, "fresh"),
                symbol("HOLES", 0, 0.25, "fresh"),
                symbol("LATE", 2, 2.25, "late"),
                symbol("STALE", 20, 19.25, "stale"),
            ],
        },
        "health": {
            "connections": one("SELECT count(*) FROM pg_stat_activity WHERE usename = current_user"),
            "connections_limit": one("SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user"),
            "tables": rows(
                "SELECT relname AS name, pg_total_relation_size(oid) AS bytes, n_live_tup AS rows"
                " FROM pg_class JOIN pg_stat_user_tables USING (relname)"
                " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY bytes DESC, name"
            ),
            "growth": [
                {"step": step} | {
                    name: one(written, step, NOW - since) for name, since in (("day", DAY), ("week", 7 * DAY))
                }
                for step in ("collect_symbol", "compute_features")
            ],
            "rate_limits": rows(
                "SELECT vendor, not_before AS paused_until, refusals, 0 AS waiting FROM request_clock"
            ),
            "alerts": rows(
                "SELECT severity, kind, subject, opened_at, dag_id, run_id FROM alerts ORDER BY key DESC"
            ),
            "alerts_open": one("SELECT count(*) FROM alerts WHERE resolved_at IS NULL"),
            "quarantined": one("SELECT count(*) FROM quarantined_bars"),
            "quarantined_day": one("SELECT count(*) FROM quarantined_bars WHERE first_seen > %s", NOW - DAY),
            "last_backup": None,
        },
    }))  # fmt: skip
    assert [cost["status"] for cost in document["performance"]["costs"]].count("crashed") == 2


def test_the_snapshot_is_json_with_its_instant_and_the_kind_of_data(
    connection: Connection, deployments: Deployments
) -> None:
    plant_bars(connection, "AAPL", [EXPECTED])
    connection.execute("INSERT INTO data_source (source) VALUES ('simulated')")

    document = json.loads(json.dumps(snapshot(connection, deployments, ["AAPL"], NOW).as_document()))

    assert (document["as_of"], document["source"]) == (NOW.isoformat(), "simulated")
    assert document["freshness"]["symbols"][0]["newest_bar"] == EXPECTED.isoformat()
    assert {"pipelines", "performance", "freshness", "health"} < set(document)
    only = snapshot(connection, deployments, ["AAPL"], NOW, ["freshness"]).as_document()
    assert set(only) == {"as_of", "source", "state", "freshness"}


def test_an_empty_database_and_a_first_run_are_told_from_one_that_has_data(
    connection: Connection, deployments: Deployments
) -> None:
    def state(now: datetime = NOW) -> str:
        found: Snapshot = snapshot(connection, deployments, ["AAPL"], now, ["freshness"])
        return found.state

    assert state() == "empty"
    plant_try(connection, "run", "AAPL", "running", at=NOW - timedelta(minutes=5))
    assert state() == "first_run"
    # A process that was killed does not let the first run last for ever.
    assert state(NOW + 2 * HOUR) == "ok"
    connection.execute("UPDATE processing_history SET status = 'ok', finished_at = %s", (NOW,))
    # Between its steps too.
    assert state(NOW + timedelta(minutes=1)) == "first_run"
    connection.execute(
        "INSERT INTO feature_engineered_data (symbol, timestamp, feature_version) VALUES ('AAPL', %s, '1')",
        (NOW,),
    )
    assert state(NOW + timedelta(minutes=1)) == "ok"


def test_nothing_can_be_written_while_looking(connection: Connection, deployments: Deployments) -> None:
    snapshot(connection, deployments, ["AAPL"], NOW, ["freshness"])
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), connection.transaction():
        connection.execute("DELETE FROM market_data")


def test_a_database_without_a_schema_is_named_so(empty_database: str, deployments: Deployments) -> None:
    with (
        psycopg.connect(empty_database, autocommit=True) as connection,
        pytest.raises(SchemaError, match=r"no schema yet.* migrate"),
    ):
        snapshot(connection, deployments, ["AAPL"], NOW)


def test_health_in_one_word_is_stale_when_too_few_symbols_are_current(
    connection: Connection, deployments: Deployments
) -> None:
    symbols = ["A", "B", "C", "D", "E"]
    assert health(connection, deployments, symbols, NOW) == "stale"
    for symbol in symbols[:4]:
        # Late, but within the two hours of market time that the YAML tolerates.
        plant_bars(connection, symbol, [EXPECTED - 2 * HOUR])
    assert health(connection, deployments, symbols, NOW) == "up"
    assert health(connection, deployments, symbols, NOW + DAY) == "stale"
    connection.execute("UPDATE market_data SET is_final = false WHERE symbol = 'A'")
    assert health(connection, deployments, symbols, NOW) == "stale"


# One symbol ---------------------------------------------------------------------------------------------


def test_a_symbol_page_has_its_bars_features_and_marks(
    connection: Connection, deployments: Deployments
) -> None:
    first, hole, refused, revised = DUE[-15], DUE[-9], DUE[-8], DUE[-7]
    plant_bars(
        connection, "AAPL", [start for start in DUE if start >= first and start not in (hole, refused)]
    )
    plant_bars(connection, "AAPL", [EXPECTED + HOUR], final=False)
    plant_bars(connection, "MSFT", DUE)
    connection.execute(
        "INSERT INTO feature_engineered_data (symbol, timestamp, feature_version, rsi, sma_short, sma_med,"
        " sma_long, bb_upper, bb_lower, macd, macd_signal, macd_histogram)"
        " VALUES ('AAPL', %s, '1', 55, 1, 2, 3, 4, 5, 6, 7, 8)",
        (EXPECTED,),
    )
    connection.execute(
        "INSERT INTO quarantined_bars (symbol, timestamp, reason, payload_hash, payload, correlation_id,"
        " released_at) VALUES ('AAPL', %(bar)s, 'high below low', 'a', '{}', 'c', NULL),"
        " ('AAPL', %(bar)s, 'low', 'b', '{}', 'c', NULL), ('AAPL', %(bar)s, 'let in', 'c', '{}', 'c', now())",
        {"bar": refused},
    )
    connection.execute(
        "INSERT INTO bar_revisions (symbol, timestamp, seen_at, open, high, low, close, volume, source,"
        " correlation_id) VALUES ('AAPL', %(bar)s, %(one)s, 1, 1, 1, 8, 1, 's', 'c'),"
        " ('AAPL', %(bar)s, %(two)s, 1, 1, 1, 9, 1, 's', 'c')",
        {"bar": revised, "one": NOW - DAY, "two": NOW},
    )
    plant_try(connection, "run", "AAPL", "ok", rows=3, cpu=1.5, memory=9)
    plant_try(connection, "run", "MSFT", "ok")

    page: SymbolPage = symbol_page(connection, deployments, "AAPL", 5, NOW)

    since = last_sessions(5, NOW)[0].open
    plain = connection.execute(
        "SELECT extract(epoch FROM m.timestamp)::bigint, open, high, low, close, volume, is_final,"
        " sma_short, sma_med, sma_long, bb_upper, bb_lower, rsi, macd, macd_signal, macd_histogram"
        " FROM market_data AS m LEFT JOIN feature_engineered_data AS f"
        " ON f.symbol = m.symbol AND f.timestamp = m.timestamp"
        " WHERE m.symbol = 'AAPL' AND m.timestamp >= %s ORDER BY 1",
        (since,),
    ).fetchall()
    assert list(zip(*page.bars.values(), strict=True)) == plain
    assert page.bars["rsi"] == [None] * (len(plain) - 2) + [55, None]
    assert page.bars["is_final"][-2:] == [True, False]
    assert page.missing == [int(hole.timestamp()), int(refused.timestamp())]
    assert [(mark.timestamp, mark.text) for mark in page.quarantined] == [
        (int(refused.timestamp()), "high below low; low")
    ]
    assert [(mark.timestamp, mark.text) for mark in page.revised] == [
        (int(revised.timestamp()), "2 x, closed at 9 before")
    ]
    (only,) = page.tries
    assert (only.run_id, only.step, only.seconds, only.cpu_seconds, only.rows_written) == (
        "run", "collect_symbol", 30, 1.5, 3,
    )  # fmt: skip
    json.dumps(page.as_document())


# The pool -----------------------------------------------------------------------------------------------


def test_a_look_that_takes_too_long_is_cut_and_not_repeated_at_once(database: str) -> None:
    pool = ReadPool(database, answer=2.1)
    try:
        with pytest.raises(SlowDatabaseError, match="no answer within 2"), pool.connection() as connection:
            connection.execute("SELECT pg_sleep(60)")
        entered = False
        with pytest.raises(SlowDatabaseError, match="no answer within 2"), pool.connection():
            entered = True
        assert not entered
    finally:
        pool.close()


def test_a_connection_that_hangs_is_replaced(database: str) -> None:
    pool = ReadPool(database)
    with pool.connection() as first:
        pid = first.info.backend_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        with pool.connection() as second:
            assert second.info.backend_pid != pid
    finally:
        os.kill(pid, signal.SIGCONT)
        pool.close()


def test_the_pool_is_bounded_and_takes_its_connections_back(database: str) -> None:
    pool = ReadPool(database, most=2, wait=1.0)
    try:
        with pool.connection() as one, pool.connection():
            pid = one.info.backend_pid
            with (
                pytest.raises(psycopg.OperationalError, match="couldn't get a connection"),
                pool.connection(),
            ):
                pass
        pids = set()
        for _ in range(5):
            with pool.connection() as again:
                pids.add(again.info.backend_pid)
        assert pid in pids
        assert len(pids) <= 2
    finally:
        pool.close()


def test_a_connection_that_the_server_ended_is_replaced(database: str) -> None:
    pool = ReadPool(database)
    try:
        with pool.connection() as first, psycopg.connect(database, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (first.info.backend_pid,))
        with pool.connection() as second:
            assert second.execute("SELECT 1").fetchone() == (1,)
    finally:
        pool.close()


def test_a_server_that_is_away_is_told_without_the_long_wait(database: str) -> None:
    nobody = database.rpartition("/")[0].rpartition("@")[0] + "@127.0.0.1:1/none"
    pool = ReadPool(nobody)
    try:
        # Not the pool's own words, which come after half a minute.
        with pytest.raises(psycopg.OperationalError, match="refused"), pool.connection():
            pass
    finally:
        pool.close()
