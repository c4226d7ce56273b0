"""The feature engine, database to database: against its floor, many times over, and queries on its tables."""

from __future__ import annotations

import os
import secrets
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
from psycopg import sql

from include.market_simulator import bars as simulated_bars
from include.mltrading.configuration.deployments import load_deployments
from include.mltrading.configuration.settings import Settings
from include.mltrading.features.definitions import FEATURE_VERSION
from include.mltrading.market.bars import Bar
from include.mltrading.monitor.figures import PARTS, Part
from include.mltrading.monitor.runs import FinishedRuns
from include.mltrading.monitor.snapshot import snapshot
from include.mltrading.store import market_data
from include.mltrading.store.connection import connect
from include.mltrading.store.migrations import migrate
from include.mltrading.store.queries import query
from include.standalone import processes
from include.standalone.airflow import MARKET_CONNECTION_LIMIT
from include.standalone.bench.report import Figure, Used, best, timed
from include.standalone.demo import say
from include.standalone.postgres import SUPERUSER, EmbeddedPostgres
from include.standalone.state import make_folder

DATABASE = "mltrading_bench"
SYMBOLS, MANY_SYMBOLS = 100, 1057
_MONITORED = 1000
_WALKS = 10  # different price walks; the other symbols repeat them
_FULL_RUNS, _INCREMENTAL_RUNS, _COLD_RUNS, _ENDURANCE_RUNS = 3, 5, 7, 50
_FLOOR_TABLE = "bench_floor"
_MARK = "MLTRADING_BENCH"


@dataclass(frozen=True)
class _Bench:
    """The database of a part, and how commands are run on it."""

    connection: psycopg.Connection[Any]
    admin: psycopg.Connection[Any]
    environment: dict[str, str]
    url: str
    names: list[str]

    def features(self, *arguments: str) -> Used:
        return timed(self.environment, "-m", "include.mltrading", "features", *arguments)

    def floor(self, since: datetime | None) -> Used:
        start = "" if since is None else since.isoformat()
        return timed(
            self.environment, "-m", "include.standalone.bench_floor",
            self.url, _FLOOR_TABLE, start, *self.names[:SYMBOLS],
        )  # fmt: skip

    def settle(self) -> None:
        """Bring earlier writes to the disk now, so that they are not paid for by what is measured next."""
        self.admin.execute("CHECKPOINT")

    def undo_all(self) -> None:
        """As if no feature had ever been computed."""
        self.connection.execute(f"TRUNCATE feature_engineered_data, {_FLOOR_TABLE}")
        self.connection.execute("UPDATE symbol_state SET feature_version = NULL")
        self.settle()

    def undo_since(self, since: datetime) -> None:
        """As if the bars from `since` on had just come in."""
        for name in ("feature_engineered_data", _FLOOR_TABLE):
            self.connection.execute(
                sql.SQL("DELETE FROM {} WHERE timestamp >= %s").format(sql.Identifier(name)), (since,)
            )
        self.connection.execute("UPDATE symbol_state SET stale_from = %s", (since,))
        self.settle()

    def last_bars(self, count: int) -> datetime:
        """Start of the last but `count` - 1 bar."""
        row = self.connection.execute(
            "SELECT timestamp FROM market_data WHERE symbol = %s ORDER BY timestamp DESC OFFSET %s LIMIT 1",
            (self.names[0], count - 1),
        ).fetchone()
        assert row is not None  # noqa: S101 - a year of bars was just loaded
        start: datetime = row[0]
        return start


@contextmanager
def _bench(symbols: int) -> Iterator[_Bench]:
    """A fresh database with a year of final bars of each symbol and no features."""
    names = [f"B{number:04d}" for number in range(symbols)]
    with (
        EmbeddedPostgres(report=say) as server,
        psycopg.connect(server.url(SUPERUSER), autocommit=True) as admin,
    ):
        drop = f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)"
        admin.execute(drop)
        url = server.ensure_database(DATABASE, MARKET_CONNECTION_LIMIT)
        symbols_file = make_folder(server.state, 0o711) / "bench_symbols.txt"
        symbols_file.write_text("\n".join(names) + "\n")
        environment = {
            **os.environ,
            "MLTRADING_DATABASE_URL": url,
            "MLTRADING_SYMBOLS_FILE": str(symbols_file),
            "OPENBLAS_NUM_THREADS": "1",
            _MARK: secrets.token_hex(8),
        }
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                say(f"loading a year of bars of {symbols} symbols")
                _load(url, connection, names)
                yield _Bench(connection, admin, environment, url, names)
        finally:
            admin.execute(drop)


def _load(url: str, connection: psycopg.Connection[Any], names: Sequence[str]) -> None:
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    settings = Settings(database_url=url)
    with connect(settings) as market:
        migrate(market)
        for name in names[:_WALKS]:
            year = [(Bar(*bar), True) for bar in simulated_bars(7, name, now - timedelta(days=365), now)]
            market_data.upsert_bars(market, name, year, source="simulated", correlation_id="bench")
    connection.execute(
        "INSERT INTO market_data (symbol, timestamp, open, high, low, close, volume, is_final, source)"
        " SELECT name, timestamp, open, high, low, close, volume, is_final, source"
        " FROM unnest(%s::text[]) WITH ORDINALITY AS copy (name, number)"
        " JOIN market_data ON symbol = 'B' || lpad(((number - 1) %% %s)::text, 4, '0')"
        " ORDER BY name, timestamp",
        (list(names[_WALKS:]), _WALKS),
    )
    connection.execute(
        "INSERT INTO symbol_state (symbol, stale_from)"
        " SELECT symbol, min(timestamp) FROM market_data GROUP BY symbol ON CONFLICT DO NOTHING"
    )
    connection.execute(f"CREATE TABLE {_FLOOR_TABLE} (LIKE feature_engineered_data INCLUDING ALL)")
    connection.execute("VACUUM ANALYZE market_data")


def engine() -> Iterator[Figure]:
    """100 symbols against the floor, one symbol alone, and what more symbols cost each."""
    with _bench(SYMBOLS) as bench:
        ours, floor = _against_floor(bench, _FULL_RUNS, None, bench.undo_all)
        yield from _figures(f"{SYMBOLS} symbols x 1 year, full", ours, floor, None, 1.5)
        full_each = ours.seconds / SYMBOLS
        for bars in (1, 21):
            since = bench.last_bars(bars)
            ours, floor = _against_floor(bench, _INCREMENTAL_RUNS, since, partial(bench.undo_since, since))
            what = f"{SYMBOLS} symbols, {bars} new bar{'s' if bars > 1 else ''} each"
            yield from _figures(what, ours, floor, 3.0, 4.0)
        new_each = ours.seconds / SYMBOLS
        unchanged = best([bench.features("--full") for _ in range(_FULL_RUNS)])
        yield Figure("engine", f"{SYMBOLS} symbols x 1 year, full, nothing changed", unchanged.seconds, "s")
        cold = []
        for _ in range(_COLD_RUNS):
            bench.undo_since(since)
            cold.append(bench.features("--symbols", bench.names[0]))
        yield Figure("engine", "1 symbol, cold: processor time", best(cold).cpu_seconds, "s CPU", 0.4)
        yield Figure("engine", "1 symbol, cold", best(cold).seconds, "s")
        yield Figure("engine", "peak memory of a symbol's process", _peak_megabytes(bench), "MB", 100)
    with _bench(MANY_SYMBOLS) as bench:
        bench.settle()
        full = bench.features()
        yield Figure("engine", f"{MANY_SYMBOLS} symbols x 1 year, full", full.seconds, "s")
        ratio = full.seconds / MANY_SYMBOLS / full_each
        yield Figure("engine", "  time per symbol against that at 100 symbols", ratio, "x", 1.1)
        runs = []
        for _ in range(2):
            bench.undo_since(bench.last_bars(21))
            runs.append(bench.features())
        yield Figure("engine", f"{MANY_SYMBOLS} symbols, 21 new bars each", best(runs).seconds, "s")
        ratio = best(runs).seconds / MANY_SYMBOLS / new_each
        yield Figure("engine", "  time per symbol against that at 100 symbols", ratio, "x", 1.1)


def _against_floor(
    bench: _Bench, runs: int, since: datetime | None, undo: Callable[[], None]
) -> tuple[Used, Used]:
    """The best of `runs` runs of the engine and of the floor, in turns."""
    ours, floor = [], []
    for _ in range(runs):
        undo()
        ours.append(bench.features())
        bench.settle()
        floor.append(bench.floor(since))
    return best(ours), best(floor)


def _figures(what: str, ours: Used, floor: Used, seconds: float | None, times: float) -> Iterator[Figure]:
    yield Figure("engine", what, ours.seconds, "s", seconds)
    yield Figure("engine", "  floor: one process, no isolation", floor.seconds, "s")
    yield Figure("engine", "  against the floor", ours.seconds / floor.seconds, "x", times)
    yield Figure("engine", "  processor time, without PostgreSQL's", ours.cpu_seconds, "s CPU")
    yield Figure("engine", "  floor's processor time", floor.cpu_seconds, "s CPU")


def _peak_megabytes(bench: _Bench) -> float:
    row = bench.connection.execute("SELECT max(peak_memory_bytes) FROM processing_history").fetchone()
    return float(row[0]) / 1e6 if row else 0.0


def endurance() -> Iterator[Figure]:
    """Runs back to back: nothing fails, and neither processes nor connections nor memory grow."""
    with _bench(SYMBOLS) as bench:
        bench.features()
        since = bench.last_bars(1)
        peaks, left, most, seconds = [], 0, 0, []
        for _ in range(_ENDURANCE_RUNS):
            bench.undo_since(since)
            with _Watch(bench) as watch:
                used = bench.features()
            seconds.append(used.seconds)
            peaks.append(used.peak_memory)
            left = max(left, len(processes.marked(f"{_MARK}={bench.environment[_MARK]}")))
            most = max(most, watch.most)
        row = bench.connection.execute(
            "SELECT count(*) FILTER (WHERE status <> 'ok'), count(*) FROM processing_history"
        ).fetchone()
        failed, tries = row or (0, 0)
    yield Figure("endurance", f"{_ENDURANCE_RUNS} runs of {SYMBOLS} symbols: a run (median)",
                 statistics.median(seconds), "s")  # fmt: skip
    yield Figure("endurance", f"  symbols that failed, of {tries}", failed, "", 0)
    yield Figure("endurance", "  most connections at a time", most, "", 10)
    yield Figure("endurance", "  most processes left behind by a run", left, "", 0)
    growth = statistics.mean(peaks[-5:]) / statistics.mean(peaks[:5])
    yield Figure("endurance", "  peak memory, last five runs against the first five", growth, "x", 1.02)
    slower = statistics.mean(seconds[-5:]) / statistics.mean(seconds[:5])
    yield Figure("endurance", "  time, last five runs against the first five", slower, "x")


class _Watch:
    """Counts the pipeline's connections every 20 ms, the bench's own left out."""

    def __init__(self, bench: _Bench) -> None:
        self.most = 0
        self._bench = bench
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._count)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _count(self) -> None:
        own = self._bench.connection.info.backend_pid
        while not self._over.wait(0.02):
            row = self._bench.admin.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND pid <> %s", (DATABASE, own)
            ).fetchone()
            self.most = max(self.most, row[0] if row else 0)


def queries() -> Iterator[Figure]:
    """The diagnostic queries on a table of many symbols, after the vacuum that autovacuum would do.

    All feature rows were written just now: those of the last day are as many as they can ever be.
    """
    with _bench(MANY_SYMBOLS) as bench:
        bench.features()
        bench.connection.execute("VACUUM ANALYZE")
        for name in ("check/check_latest_bar", "check/check_recent_features", "check/check_symbol_times"):
            taken = []
            for _ in range(5):
                begun = time.perf_counter()
                bench.connection.execute(query(name)).fetchall()
                taken.append(1000 * (time.perf_counter() - begun))
            text = " ".join(query(name).split())
            yield Figure("queries", f"{text[:57]}{'...' if len(text) > 57 else ''}", min(taken), "ms")


def monitor() -> Iterator[Figure]:
    """The monitor's snapshot of many symbols and 200 runs of both DAGs, against a look-up for each symbol."""
    with _bench(_MONITORED) as bench:
        bench.connection.execute(
            "INSERT INTO processing_history (dag_id, run_id, step, symbol, try, correlation_id, window_end,"
            " started_at, finished_at, status, rows_written, cpu_seconds, peak_memory_bytes)"
            " SELECT dag_id, 'run' || tick, step, symbol, 1, 'bench', tick, tick, tick + interval '1 min',"
            " 'ok', 21, 0.1, 40000000"
            " FROM (SELECT tick FROM generate_series("
            " date_trunc('hour', now()) - interval '100 days', now(), '1 h') AS hours (tick)"
            " WHERE extract(isodow FROM tick AT TIME ZONE 'America/New_York') < 6"
            " AND extract(hour FROM tick AT TIME ZONE 'America/New_York') BETWEEN 9 AND 16"
            " ORDER BY tick DESC LIMIT 200) AS ticks"
            " CROSS JOIN (VALUES ('yahoo-production-data-collection', 'collect_symbol'),"
            " ('feature-engineering-production-subprocess', 'compute_features')) AS dag (dag_id, step)"
            " CROSS JOIN unnest(%s::text[]) AS symbols (symbol)"
            # On the disk as runs leave them: the rows of a run stand together.
            " ORDER BY tick, dag_id, symbol",
            (bench.names,),
        )
        bench.connection.execute("VACUUM ANALYZE")
        bench.settle()
        deployments, now = load_deployments(), datetime.now(UTC)

        def look(parts: Sequence[Part]) -> float:
            return _milliseconds(
                lambda: snapshot(bench.connection, deployments, bench.names, now, parts).as_document()
            )

        lacking = look(["freshness"])
        bench.connection.read_only = False
        bench.connection.execute(
            "UPDATE symbol_state SET feature_version = %s, stale_from = %s",
            (FEATURE_VERSION, bench.last_bars(1)),
        )
        bench.connection.execute(
            "INSERT INTO feature_engineered_data (symbol, timestamp, feature_version)"
            " SELECT symbol, timestamp, %s FROM market_data LIMIT 1",
            (FEATURE_VERSION,),
        )
        floor = _milliseconds(
            lambda: bench.connection.execute(query("bars/newest_bars"), {"symbols": bench.names}).fetchall()
        )
        whole = look(PARTS)
        finished = FinishedRuns()
        again = _milliseconds(
            lambda: snapshot(bench.connection, deployments, bench.names, now, PARTS, finished).as_document()
        )
        yield Figure("monitor", f"snapshot of {_MONITORED} symbols x 1 year, all parts", whole, "ms", 300)
        yield Figure("monitor", "  the same by a process that has looked before", again, "ms")
        yield Figure("monitor", "  floor: the newest bar of each symbol", floor, "ms")
        yield Figure("monitor", "  against the floor", whole / floor, "x")
        for part in PARTS:
            yield Figure("monitor", f"  {part} alone", look([part]), "ms")
        yield Figure("monitor", "  freshness alone, no feature computed yet", lacking, "ms")


def _milliseconds(work: Callable[[], object]) -> float:
    """The best of some goes; the first, which fills caches, does not count."""
    taken = []
    for _ in range(6):
        begun = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - begun))
    return min(taken[1:])
