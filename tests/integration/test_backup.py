"""Backup and restore with the real pg_dump: only what was restored and compared is taken for good."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from include.market_simulator import MarketSimulator
from include.mltrading.pipeline.backup import backup, restore
from include.mltrading.settings import PROJECT_ROOT, Settings
from include.mltrading.store.connection import connect
from include.mltrading.store.migrations import made_by_migrations, migrate
from include.standalone.postgres import READONLY, SUPERUSER, EmbeddedPostgres

pytestmark = pytest.mark.integration

Cli = Callable[..., Any]


def quiet(stage: str, done: int, total: int | None) -> None:
    """Nobody looks."""


@pytest.fixture(autouse=True)
def programs(postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_dump and pg_restore of the server's version, as `make shell` has them."""
    monkeypatch.setenv("PATH", f"{postgres.bin}:{os.environ['PATH']}")


@pytest.fixture
def new_market(postgres: EmbeddedPostgres) -> Iterator[Callable[[], Settings]]:
    """Make a market database as the bare machine does, with roles and a database to verify in, not migrated."""
    made = []

    def make() -> Settings:
        made.append(f"backup_{uuid.uuid4().hex[:8]}")
        url = postgres.ensure_database(made[-1], connection_limit=25)
        postgres.apply_roles(made[-1])
        return Settings(database_url=url)

    yield make
    with psycopg.connect(postgres.url(SUPERUSER), autocommit=True) as admin:
        for name in made:
            for database in (name, f"{name}_verify"):
                admin.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")


@pytest.fixture
def market(new_market: Callable[[], Settings]) -> Settings:
    """A migrated market database with some rows of several tables."""
    settings = new_market()
    with connect(settings) as connection:
        migrate(connection)
        fill(connection)
    return settings


def fill(connection: psycopg.Connection[Any], rows: int = 500) -> None:
    connection.execute(
        "INSERT INTO market_data (symbol, timestamp, open, high, low, close, volume, is_final, source)"
        " SELECT 'AAPL', timestamptz '2026-01-05 14:30+00' + n * interval '1 hour', 10 + random(), 12 + random(),"
        " 9 + random() / 3, 10 + random(), n, true, 'simulated' FROM generate_series(1, %s) AS n",
        [rows],
    )
    connection.execute("INSERT INTO data_source (source) VALUES ('simulated') ON CONFLICT DO NOTHING")
    connection.execute(
        "INSERT INTO quarantined_bars (symbol, timestamp, reason, payload_hash, payload, correlation_id)"
        " VALUES ('AAPL', '2026-01-05 14:30+00', E'a\\ttab, a \\\\. and a\\nline', 'h', '{\"open\": \"x\"}', 'c')"
    )
    connection.execute(
        "INSERT INTO alerts (key, condition, kind, severity, subject, details)"
        " SELECT n, n, 'k', 'info', 'é', '{}' FROM generate_series(1, 3) AS n"
    )


def content(settings: Settings) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table of the program, but the records of backups."""
    with connect(settings) as connection:
        return {
            table: sorted(
                connection.execute(
                    sql.SQL("SELECT {}::text FROM {}").format(sql.Identifier(table), sql.Identifier(table))
                ).fetchall()
            )
            for table in made_by_migrations("TABLE")
            if table != "backup_history"
        }


def history(settings: Settings) -> list[tuple[Any, ...]]:
    with connect(settings) as connection:
        return connection.execute(
            "SELECT file, bytes, rows, verified_at IS NOT NULL, error FROM backup_history ORDER BY id"
        ).fetchall()


def test_a_backup_brings_every_table_back(
    market: Settings, new_market: Callable[[], Settings], tmp_path: Path
) -> None:
    file = tmp_path / "market.dump"
    before = content(market)
    made = backup(market, file, quiet)
    assert made.tables["market_data"] == 500
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert history(market) == [(str(file), file.stat().st_size, sum(made.tables.values()), True, None)]
    assert list(tmp_path.iterdir()) == [file]

    elsewhere = new_market()
    done = restore(elsewhere, file, quiet)
    assert content(elsewhere) == before
    assert done.tables == made.tables
    assert (done.source, done.migrated) == ("simulated", [])
