"""The feature engine, database to database, against its floor."""

from __future__ import annotations

import os
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
from include.mltrading.configuration.settings import Settings
from include.mltrading.market.bars import Bar
from include.mltrading.store import market_data
from include.mltrading.store.connection import connect
from include.mltrading.store.migrations import migrate
from include.standalone.airflow import MARKET_CONNECTION_LIMIT
from include.standalone.bench.report import Figure, Used, median, timed
from include.standalone.console import say
from include.standalone.postgres import SUPERUSER, EmbeddedPostgres
from include.standalone.state import make_folder

DATABASE = "mltrading_bench"
SYMBOLS, MANY_SYMBOLS = 100, 1057
_WALKS = 10  # different price walks; the other symbols repeat them
_RUNS, _COLD_RUNS = 5, 7
_FLOOR_TABLE = "bench_floor"


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

    def log_ins(self) -> int:
        """How often anybody has connected to the database so far."""
        time.sleep(1)  # a server process counts itself when it ends
        row = self.admin.execute(
            "SELECT sessions FROM pg_stat_database WHERE datname = %s", (DATABASE,)
        ).fetchone()
        return int(row[0]) if row else 0

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
        ours, floor = _against_floor(bench, None, bench.undo_all)
        yield from _figures(f"{SYMBOLS} symbols x 1 year, full", ours, floor, None, 1.15)
        full_each = ours.seconds / SYMBOLS
        for bars in (1, 21):
            since = bench.last_bars(bars)
            ours, floor = _against_floor(bench, since, partial(bench.undo_since, since))
            what = f"{SYMBOLS} symbols, {bars} new bar{'s' if bars > 1 else ''} each"
            yield from _figures(what, ours, floor, 3.0, 4.0)
        new_each = ours.seconds / SYMBOLS
        yield from _one_command(bench, since)
    yield from _many(full_each, new_each)


def _one_command(bench: _Bench, since: datetime) -> Iterator[Figure]:
    """What a command takes beside time, and what one symbol alone costs."""
    bench.undo_since(since)
    before = bench.log_ins()
    bench.features()
    log_ins = bench.log_ins() - before
    yield Figure("engine", f"  connections of the command with {SYMBOLS} symbols", log_ins, "", 5)
    peak = bench.connection.execute("SELECT max(peak_memory_bytes) FROM processing_history").fetchone()
    yield Figure(
        "engine", "  peak memory of a process that computes", float(peak[0]) / 1e6 if peak else 0, "MB", 60
    )
    cold = []
    for _ in range(_COLD_RUNS):
        bench.undo_since(since)
        cold.append(bench.features("--symbols", bench.names[0]))
    yield Figure("engine", "1 symbol, cold: processor time", median(cold).cpu_seconds, "s CPU", 0.4)
    yield Figure("engine", "1 symbol, cold", median(cold).seconds, "s")


def _many(full_each: float, new_each: float) -> Iterator[Figure]:
    """1,057 symbols; full_each, new_each: seconds per symbol at 100."""
    with _bench(MANY_SYMBOLS) as bench:
        full = median([_full(bench) for _ in range(3)])
        yield Figure("engine", f"{MANY_SYMBOLS} symbols x 1 year, full", full.seconds, "s")
        ratio = full.seconds / MANY_SYMBOLS / full_each
        yield Figure("engine", "  time per symbol against that at 100 symbols", ratio, "x", 1.05)
        runs = []
        for _ in range(3):
            bench.undo_since(bench.last_bars(21))
            runs.append(bench.features())
        yield Figure("engine", f"{MANY_SYMBOLS} symbols, 21 new bars each", median(runs).seconds, "s")
        ratio = median(runs).seconds / MANY_SYMBOLS / new_each
        yield Figure("engine", "  time per symbol against that at 100 symbols", ratio, "x", 1.05)


def _full(bench: _Bench) -> Used:
    bench.undo_all()
    return bench.features()


def _against_floor(bench: _Bench, since: datetime | None, undo: Callable[[], None]) -> tuple[Used, Used]:
    """The median of runs of the engine and of the floor, in turns."""
    ours, floor = [], []
    for _ in range(_RUNS):
        undo()
        ours.append(bench.features())
        bench.settle()
        floor.append(bench.floor(since))
    return median(ours), median(floor)


def _figures(what: str, ours: Used, floor: Used, seconds: float | None, times: float) -> Iterator[Figure]:
    yield Figure("engine", what, ours.seconds, "s", seconds)
    yield Figure("engine", "  floor: one process, no isolation", floor.seconds, "s")
    yield Figure("engine", "  against the floor", ours.seconds / floor.seconds, "x", times)
    yield Figure("engine", "  processor time, without PostgreSQL's", ours.cpu_seconds, "s CPU")
    yield Figure("engine", "  floor's processor time", floor.cpu_seconds, "s CPU")
