"""The recovery drill of docs/backup.md: a year of bars is lost, comes back, and goes on from there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from include.market_simulator import MarketSimulator, bars
from include.mltrading.configuration.settings import PROJECT_ROOT, Settings
from include.mltrading.configuration.symbols import read_symbols_file
from include.mltrading.store.migrations import made_by_migrations
from include.standalone.postgres import SUPERUSER, EmbeddedPostgres

pytestmark = pytest.mark.integration

Counts = dict[str, tuple[int, str | None]]


def load_a_year(url: str, symbols: list[str], end: datetime) -> None:
    with psycopg.connect(url) as connection:
        with connection.cursor().copy(
            "COPY market_data (symbol, timestamp, open, high, low, close, volume, is_final, source)"
            " FROM STDIN"
        ) as copy:
            for symbol in symbols:
                for bar in bars(7, symbol, end - timedelta(days=365), end):
                    copy.write_row((symbol, *bar[:5], int(bar.volume), True, "simulated"))
        connection.execute("INSERT INTO data_source (source) VALUES ('simulated')")
        connection.execute(
            "INSERT INTO symbol_state (symbol, stale_from)"
            " SELECT symbol, min(timestamp) FROM market_data GROUP BY symbol"
        )


def tables(url: str) -> Counts:
    """Rows and content of every table of the program, but the records of backups."""
    found: Counts = {}
    with psycopg.connect(url) as connection:
        for name in made_by_migrations("TABLE"):
            select = "SELECT count(*), bit_xor(('x' || left(md5(t::text), 16))::bit(64)) FROM {} AS t"
            row = connection.execute(sql.SQL(select).format(sql.Identifier(name))).fetchone()
            assert row is not None
            found[name] = row
    found.pop("backup_history")
    return found


def drill() -> list[str]:
    """The commands of the third step."""
    section = (PROJECT_ROOT / "docs" / "backup.md").read_text().split("\n## The drill\n")[1]
    block = re.search(r"^3\. .*?```sh\n(.*?)```", section, re.DOTALL | re.MULTILINE)
    assert block is not None
    return textwrap.dedent(block[1]).splitlines()


@pytest.mark.parametrize("count", [2, pytest.param(100, marks=pytest.mark.exhaustive)])
def test_a_lost_database_comes_back_and_goes_on(
    postgres: EmbeddedPostgres, simulator: MarketSimulator, tmp_path: Path, count: int
) -> None:
    database = f"drill_market_{count}"
    symbols = read_symbols_file(Settings().symbols_file)[:count]
    assert len(symbols) == count
    (tmp_path / "symbols.txt").write_text("\n".join(symbols))
    backups = tmp_path / "backups"
    backups.mkdir()
    url = postgres.ensure_database(database, connection_limit=25)
    postgres.apply_roles(database)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{postgres.bin}:{os.environ['PATH']}",
        "MLTRADING_DATABASE_URL": url,
        "MLTRADING_YAHOO_URL": simulator.url,
        "MLTRADING_YAHOO_REQUESTS_PER_SECOND": "1000",
        "MLTRADING_SYMBOLS_FILE": str(tmp_path / "symbols.txt"),
        "BACKUP": str(backups / "market.dump"),
    }

    def run(command: str) -> None:
        done = subprocess.run(
            ["bash", "-euc", command], cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)

    run("python -m include.mltrading migrate")
    load_a_year(url, symbols, datetime.now(UTC) - timedelta(days=5))
    run("python -m include.mltrading features")
    before = tables(url)
    assert before["market_data"][0] > 1700 * count
    assert before["feature_engineered_data"][0] == before["market_data"][0]
    run('python -m include.mltrading backup "$BACKUP"')
    with psycopg.connect(postgres.url(SUPERUSER), autocommit=True) as admin:
        for name in (database, f"{database}_verify"):
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    postgres.ensure_database(database, connection_limit=25)
    postgres.apply_roles(database)

    commands = drill()
    assert [command.split()[3] for command in commands] == [
        "restore", "check", "collect", "features", "check", "backup",
    ]  # fmt: skip
    run(commands[0])
    assert tables(url) == before
    for command in commands[1:]:
        run(command)

    after = tables(url)
    assert after["market_data"][0] > before["market_data"][0]
    with psycopg.connect(url) as connection:
        finals = connection.execute("SELECT count(*) FROM market_data WHERE is_final").fetchone()
        revised = connection.execute("SELECT count(*) FROM bar_revisions").fetchone()
    assert finals == (after["feature_engineered_data"][0],)
    assert revised == (0,)  # what was restored is what the vendor still tells
    assert len(list(backups.glob("*.dump"))) == 2
