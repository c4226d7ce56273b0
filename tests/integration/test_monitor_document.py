"""The monitor's documents as a whole: each number is compared with plain SQL."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from include.mltrading.configuration.deployments import Deployments
from include.mltrading.errors import SchemaError
from include.mltrading.features.definitions import FEATURE_VERSION
from include.mltrading.market.calendar import last_sessions
from include.mltrading.monitor.figures import Snapshot
from include.mltrading.monitor.freshness import COUNT_TO
from include.mltrading.monitor.health import health
from include.mltrading.monitor.snapshot import snapshot
from include.mltrading.monitor.symbol import SymbolPage, symbol_page
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
    plant_bars,
    plant_state,
    plant_try,
)
from tests.integration.monitoring import connection as connection
from tests.integration.monitoring import deployments as deployments

pytestmark = pytest.mark.integration


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
