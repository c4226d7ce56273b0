"""Backup and restore with the real pg_dump: only what was restored and compared is taken for good."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import yaml
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from include.mltrading.configuration.settings import PROJECT_ROOT, Settings
from include.mltrading.errors import MLTradingError, UsageError
from include.mltrading.operations.backup import backup, restore
from include.mltrading.store.connection import connect
from include.mltrading.store.migrations import made_by_migrations, migrate, require_current_schema
from include.standalone.postgres import READONLY, SUPERUSER, EmbeddedPostgres

pytestmark = pytest.mark.integration

Cli = Callable[..., Any]


def quiet(stage: str, done: int, total: int | None) -> None:
    """Nobody looks."""


@pytest.fixture(autouse=True)
def programs(postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_dump and pg_restore of the server's version, as `make shell` has them."""
    monkeypatch.setenv("PATH", f"{postgres.bin}:{os.environ['PATH']}")


@pytest.fixture(scope="module")
def pool() -> list[str]:
    """Names of market databases that no test uses: making and dropping one costs seconds of disk."""
    return []


@pytest.fixture
def new_market(postgres: EmbeddedPostgres, pool: list[str]) -> Iterator[Callable[[], Settings]]:
    """Make an empty market database with roles and a database to verify in.

    As a container's PostgreSQL does: the pipeline's role owns its schema and not the database.
    """
    used = []

    def make() -> Settings:
        if pool:
            name = pool.pop()
            as_admin(postgres, f"DROP SCHEMA {name} CASCADE", name)
        else:
            name = f"backup_{uuid.uuid4().hex[:8]}"
            as_admin(postgres, f"CREATE DATABASE {name}")
        used.append(name)
        postgres.apply_roles(name)
        return Settings(database_url=postgres.url(name))

    yield make
    pool += used


def as_admin(postgres: EmbeddedPostgres, statement: str, database: str = SUPERUSER) -> None:
    url = make_conninfo(postgres.url(SUPERUSER), dbname=database)
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(statement)


def name_of(settings: Settings) -> str:
    return str(conninfo_to_dict(settings.database_url or "")["dbname"])


@pytest.fixture
def market(new_market: Callable[[], Settings]) -> Settings:
    """A migrated market database with some rows of several tables."""
    return filled(new_market())


def filled(settings: Settings, rows: int = 500) -> Settings:
    """The same, migrated and with so many bars."""
    with connect(settings) as connection:
        migrate(connection)
        fill(connection, rows)
    return settings


def fill(connection: psycopg.Connection[Any], rows: int) -> None:
    connection.execute(
        "INSERT INTO market_data (symbol, timestamp, open, high, low, close, volume, is_final, source)"
        " SELECT 'AAPL', timestamptz '2026-01-05 14:30+00' + n * interval '1 hour', 10 + random(),"
        " 12 + random(), 9 + random() / 3, 10 + random(), n, true, 'simulated'"
        " FROM generate_series(1, %s) AS n",
        [rows],
    )
    connection.execute("INSERT INTO data_source (source) VALUES ('simulated') ON CONFLICT DO NOTHING")
    connection.execute(
        "INSERT INTO quarantined_bars (symbol, timestamp, reason, payload_hash, payload, correlation_id)"
        " VALUES ('AAPL', '2026-01-05 14:30+00', E'a\\ttab, a \\\\. and a\\nline', 'h', '{}', 'c')"
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
    market: Settings, new_market: Callable[[], Settings], postgres: EmbeddedPostgres, tmp_path: Path
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
    # What was granted by roles.sql still is, and numbers go on.
    analyst = make_conninfo(
        elsewhere.database_url or "", user=READONLY, password=postgres._password(READONLY)
    )
    with psycopg.connect(analyst) as connection:
        assert connection.execute("SELECT count(*) FROM latest_bars_with_features").fetchone() == (0,)
    with connect(elsewhere) as connection:
        number = connection.execute(
            "INSERT INTO alerts (key, condition, kind, severity, subject, details)"
            " VALUES ('x', 'x', 'k', 'info', 's', '{}') RETURNING id"
        ).fetchone()
    assert number == (4,)


def test_what_is_written_meanwhile_is_not_in_the_backup_and_does_not_spoil_it(
    market: Settings, new_market: Callable[[], Settings], tmp_path: Path
) -> None:
    before = content(market)

    def writes(stage: str, done: int, total: int | None) -> None:
        if stage.startswith(("reading schema_migrations", "dumping")):
            with connect(market) as connection:
                connection.execute("UPDATE market_data SET volume = volume + 1")
                connection.execute("DELETE FROM alerts")

    file = tmp_path / "market.dump"
    assert backup(market, file, writes).tables["alerts"] == 3
    elsewhere = new_market()
    restore(elsewhere, file, quiet)
    assert content(elsewhere) == before
    assert content(market) != before


def replace_program(folder: Path, name: str, script: str) -> None:
    """Put a shell script before the real program; REAL in it stands for that one."""
    real = shutil.which(name)
    assert real is not None
    (folder / name).write_text(f"#!/bin/sh\n{script.replace('REAL', real)}\n")
    (folder / name).chmod(0o755)
    os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"  # undone by the fixture `programs`


def test_a_dump_of_anything_but_the_compared_snapshot_is_not_taken_for_good(
    market: Settings, cli: Cli, tmp_path: Path
) -> None:
    """Here pg_dump leaves the snapshot out, so that it sees a bar which came later."""
    replace_program(
        tmp_path,
        "pg_dump",
        'for word do shift; case "$word" in --snapshot=*) ;; *) set -- "$@" "$word" ;; esac; done\n'
        'exec REAL "$@"',
    )

    def writes(stage: str, done: int, total: int | None) -> None:
        if stage.startswith("reading schema_migrations"):
            with connect(market) as connection:
                connection.execute("UPDATE market_data SET close = close + 0.0000001 WHERE volume = 7")

    file = tmp_path / "market.dump"
    with pytest.raises(MLTradingError, match="not good: restored, market_data differ from what was dumped"):
        backup(market, file, writes)
    assert not list(tmp_path.glob("market.dump*"))
    [(recorded, size, rows, good, error)] = history(market)
    assert (recorded, size, rows, good) == (str(file), None, None, False)
    assert "market_data differ" in error
    told = cli("check", "--json", MLTRADING_DATABASE_URL=market.database_url).document
    assert (told["last_backup"], told["last_backup_hours"]) == (None, None)


def test_check_tells_the_age_of_the_last_good_backup(market: Settings, cli: Cli, tmp_path: Path) -> None:
    assert "last backup     none yet\n" in cli("check", MLTRADING_DATABASE_URL=market.database_url).out
    backup(market, tmp_path / "market.dump", quiet)
    with connect(market) as connection:
        connection.execute("UPDATE backup_history SET finished_at = finished_at - interval '30 hours'")
    told = cli("check", "--json", MLTRADING_DATABASE_URL=market.database_url).document
    assert told["last_backup_hours"] == pytest.approx(30, abs=0.2)
    assert "(30.0 hours ago)" in cli("check", MLTRADING_DATABASE_URL=market.database_url).out


def test_an_existing_file_is_replaced_with_force_only_and_by_a_good_backup_only(
    market: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "market.dump"
    file.write_text("precious")
    with pytest.raises(UsageError, match=r"market\.dump exists: --force replaces it"):
        backup(market, file, quiet)
    spoilt = replace(market, verify_database="no_such_database")
    with pytest.raises(UsageError):
        backup(spoilt, file, quiet, force=True)
    assert file.read_text() == "precious"
    backup(market, file, quiet, force=True)
    assert file.read_bytes().startswith(b"PGDMP")


# Killed ------------------------------------------------------------------------------------------------


@contextmanager
def started(settings: Settings, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command line, running in a session of its own, of which nothing is left afterwards."""
    child = subprocess.Popen(
        [sys.executable, "-m", "include.mltrading", *arguments],
        cwd=PROJECT_ROOT,
        env={**os.environ, "MLTRADING_DATABASE_URL": settings.database_url or ""},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def until(holds: Callable[[], Any], child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert child.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_killed_while_it_dumps_nothing_is_taken_for_a_backup(market: Settings, tmp_path: Path) -> None:
    replace_program(
        tmp_path, "pg_dump", 'case "$1" in --version) exec REAL "$@";; esac; REAL "$@"; sleep 600'
    )
    file, part = tmp_path / "market.dump", tmp_path / "market.dump.part"
    with started(market, "backup", str(file)) as child:
        until(lambda: part.exists() and part.stat().st_size > 0, child)
        [dumping] = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        dump = psutil.Process(int(dumping))
        child.kill()
        child.wait()
        deadline = time.monotonic() + 30
        while dump.is_running() and dump.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "left alone to write on"
            time.sleep(0.02)
    assert not file.exists()
    assert history(market) == []

    (tmp_path / "pg_dump").unlink()
    backup(market, file, quiet)
    assert not part.exists()
    assert [good for *_, good, _ in history(market)] == [True]


def test_killed_while_it_compares_nothing_is_taken_for_a_backup_and_the_next_one_is_good(
    market: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "market.dump"
    verify = make_conninfo(market.database_url or "", dbname=f"{name_of(market)}_verify")
    with psycopg.connect(verify) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended('mltrading:migrate', 0))")
        with started(market, "backup", str(file)) as child:
            until(
                lambda: (
                    other.execute(
                        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                    ).fetchone()
                    == (1,)
                ),
                child,
            )
            with pytest.raises(UsageError, match="another backup is writing"):
                backup(market, file, quiet)
            child.kill()
    assert not file.exists()
    assert [good for *_, good, _ in history(market)] == [False]  # the refused one
    backup(market, file, quiet)
    assert [good for *_, good, _ in history(market)] == [False, True]


def test_killed_while_it_restores_the_database_is_as_it_was(
    market: Settings, new_market: Callable[[], Settings], tmp_path: Path
) -> None:
    file = tmp_path / "market.dump"
    backup(market, file, quiet)
    target = filled(new_market(), rows=20)
    before = content(target)
    # All but the end of the largest table comes out, then nothing more.
    replace_program(
        tmp_path,
        "pg_restore",
        'case "$*" in *--table=*|--version) exec REAL "$@";; esac\n'
        'REAL "$@" |'
        " awk '{print; fflush()} /^COPY .*market_data/ {seen=1} seen && ++n > 400 {exit}'; sleep 600",
    )
    with started(target, "restore", "--force", str(file)) as child, connect(target) as connection:
        until(
            lambda: connection.execute(
                "SELECT 1 FROM pg_stat_progress_copy WHERE datname = current_database()"
            ).fetchone(),
            child,
        )
        child.kill()
    assert content(target) == before

    (tmp_path / "pg_restore").unlink()
    restore(target, file, quiet, force=True)
    assert content(target) == content(market)


# Damaged, foreign, too new -----------------------------------------------------------------------------


def test_a_damaged_file_is_refused_and_the_database_is_as_it_was(market: Settings, tmp_path: Path) -> None:
    file = tmp_path / "market.dump"
    backup(market, file, quiet)
    whole, before = file.read_bytes(), content(market)
    damaged = tmp_path / "damaged.dump"
    for cut in (len(whole) // 4, len(whole) // 2, len(whole) - 2000, len(whole) - 1):
        damaged.write_bytes(whole[:cut])
        with pytest.raises(MLTradingError, match=r"damaged\.dump"):
            restore(market, damaged, quiet, force=True)
        assert content(market) == before
    place = whole.index(b"\x78", len(whole) // 2)  # about where a table's compressed rows begin
    damaged.write_bytes(whole[: place + 500] + bytes(200) + whole[place + 700 :])
    with pytest.raises(MLTradingError, match=r"damaged\.dump"):
        restore(market, damaged, quiet, force=True)
    assert content(market) == before


def test_what_is_no_backup_is_refused_by_its_name(
    postgres: EmbeddedPostgres, market: Settings, cli: Cli, tmp_path: Path
) -> None:
    text, other = tmp_path / "text.dump", tmp_path / "other.dump"
    text.write_text("-- PostgreSQL database dump")
    subprocess.run(["pg_dump", "-Fc", "-f", other, postgres.url("postgres")], check=True)
    before = content(market)
    for path, said in (
        (tmp_path / "absent.dump", "cannot be read (No such file or directory)"),
        (tmp_path, "cannot be read (Is a directory)"),
        (text, "is no backup"),
        (other, "is a dump of another database: it has no row of schema_migrations"),
    ):
        done = cli("restore", "--force", str(path), MLTRADING_DATABASE_URL=market.database_url)
        assert done.code == 2, done.err
        assert done.err.startswith(f"error: {path} {said}")
        assert len(done.err.splitlines()) == 1
    assert content(market) == before


def dump_by_hand(settings: Settings, file: Path) -> None:
    subprocess.run(["pg_dump", "-Fc", "-f", file, settings.database_url or ""], check=True)


def test_an_older_backup_is_migrated_in_the_same_transaction(
    new_market: Callable[[], Settings], market: Settings, tmp_path: Path
) -> None:
    old, file = new_market(), tmp_path / "old.dump"
    with connect(old) as connection:
        migrate(connection, version=4)
        fill(connection, rows=500)
        rows = connection.execute("SELECT * FROM market_data ORDER BY timestamp").fetchall()
    dump_by_hand(old, file)
    done = restore(market, file, quiet, force=True)
    assert done.migrated[0] == "0005_backup_history"
    with connect(market) as connection:
        require_current_schema(connection)
        assert connection.execute("SELECT * FROM market_data ORDER BY timestamp").fetchall() == rows


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "INSERT INTO schema_migrations VALUES (9999, '9999_future', 'x')",
            "newer than the program (9999_future)",
        ),
        ("UPDATE schema_migrations SET checksum = 'x' WHERE version = 1", "0001_initial was edited"),
        ("ALTER TABLE market_data ADD COLUMN mine text", "market_data is not as the migrations make it"),
        ("UPDATE data_source SET source = 'yahoo'", "holds simulated data and"),
    ],
)
def test_what_does_not_fit_the_program_or_the_data_is_refused_also_with_force(
    change: str, said: str, market: Settings, new_market: Callable[[], Settings], tmp_path: Path
) -> None:
    odd, file = filled(new_market()), tmp_path / "odd.dump"
    with connect(odd) as connection:
        connection.execute(change)
    dump_by_hand(odd, file)
    before = content(market)
    with pytest.raises(MLTradingError, match=re.escape(said)):
        restore(market, file, quiet, force=True)
    assert content(market) == before


def test_a_database_with_rows_is_replaced_with_force_only_and_whole(
    market: Settings, new_market: Callable[[], Settings], cli: Cli, tmp_path: Path
) -> None:
    file = tmp_path / "market.dump"
    backup(market, file, quiet)
    target = new_market()
    with connect(target) as connection:
        migrate(connection)
    # Migrated and without rows counts as empty: init services do that before anybody can restore.
    assert cli("restore", str(file), MLTRADING_DATABASE_URL=target.database_url).code == 0
    with connect(target) as connection:
        connection.execute("UPDATE market_data SET close = close + 0.1")
        connection.execute("CREATE TABLE somebodys AS SELECT 1 AS one")
    before = content(target)
    refused = cli("restore", str(file), MLTRADING_DATABASE_URL=target.database_url)
    assert refused.code == 2
    assert f"database '{name_of(target)}' is not empty, market_data has rows: --force" in refused.err
    assert content(target) == before
    done = cli("restore", "--force", "--json", str(file), MLTRADING_DATABASE_URL=target.database_url)
    assert done.document["tables"]["market_data"] == 500
    assert content(target) == content(market)
    with connect(target) as connection:
        assert connection.execute("SELECT one FROM somebodys").fetchall() == [(1,)]


def test_what_others_made_is_named_and_left_alone(market: Settings, cli: Cli, tmp_path: Path) -> None:
    with connect(market) as connection:
        connection.execute("CREATE TABLE somebodys AS SELECT 1 AS one")
        connection.execute("CREATE VIEW theirs AS SELECT symbol FROM market_data")
    file = tmp_path / "market.dump"
    done = cli("backup", str(file), MLTRADING_DATABASE_URL=market.database_url)
    assert done.code == 0
    assert [line.split()[1] for line in done.err.splitlines()] == ["somebodys", "theirs"]
    before = content(market)
    with pytest.raises(UsageError, match=r"view theirs depends on table market_data\): drop it"):
        restore(market, file, quiet, force=True)
    assert content(market) == before


def test_a_dump_of_another_release_of_postgresql_can_be_restored(
    market: Settings, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    """From 18 to 16, which knows not every setting of 18, and back."""
    binaries = postgres.files.wheel.with_name("pginstall")
    file, back = tmp_path / "market.dump", tmp_path / "back.dump"
    backup(market, file, quiet)
    with EmbeddedPostgres(tmp_path / "old", binaries=binaries, report=lambda line: None) as server:
        older = Settings(database_url=server.ensure_database("mltrading"))
        server.apply_roles("mltrading")
        with psycopg.connect(older.database_url or "") as connection:
            assert connection.info.server_version // 10000 < 18
        restore(older, file, quiet)
        assert content(older) == content(market)
        backup(older, back, quiet)
        restore(market, back, quiet, force=True)
        assert content(older) == content(market)
    server.remove()


# The programs, the disk, the database to verify in ------------------------------------------------------


def one_error(done: Any, *names: str) -> None:
    assert done.code == 2, done.err
    [line] = done.err.splitlines()
    assert line.startswith("error: ")
    for name in names:
        assert name in line


def test_a_missing_or_an_older_pg_dump_is_told_with_the_package_that_has_it(
    market: Settings, cli: Cli, tmp_path: Path
) -> None:
    folder = tmp_path / "programs"
    folder.mkdir()
    file = tmp_path / "market.dump"
    url = market.database_url
    done = cli("backup", str(file), MLTRADING_DATABASE_URL=url, PATH=str(folder))
    one_error(done, "pg_dump is not on PATH", "postgresql-client", "make shell")
    replace_program(folder, "pg_dump", "echo 'pg_dump (PostgreSQL) 14.1 (Debian 14.1-1)'")
    done = cli("backup", str(file), MLTRADING_DATABASE_URL=url)
    one_error(done, "pg_dump is of PostgreSQL 14 and the server of 18", "postgresql-client-18")
    assert list(tmp_path.iterdir()) == [folder]


def test_what_pg_dump_says_is_passed_on(market: Settings, tmp_path: Path) -> None:
    replace_program(
        tmp_path, "pg_dump",
        'case "$1" in --version) exec REAL "$@";; esac; echo "pg_dump: error: no luck today" >&2; exit 1',
    )  # fmt: skip
    with pytest.raises(MLTradingError, match="pg_dump failed: no luck today"):
        backup(market, tmp_path / "market.dump", quiet)
    assert not list(tmp_path.glob("market.dump*"))
    [(*_, good, error)] = history(market)
    assert (good, error) == (False, "pg_dump failed: no luck today")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("SKIPPED: needs the right to mount a small disk, run the tests as root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_told_and_cleared_up(market: Settings, cli: Cli, small_disk: Path) -> None:
    done = cli("backup", str(small_disk / "market.dump"), MLTRADING_DATABASE_URL=market.database_url)
    assert done.code == 1
    assert "No space left on device" in done.err
    assert list(small_disk.iterdir()) == []


def test_a_folder_that_is_missing_is_told(market: Settings, cli: Cli, tmp_path: Path) -> None:
    url = market.database_url
    absent = tmp_path / "absent"
    done = cli("backup", str(absent / "a.dump"), MLTRADING_DATABASE_URL=url)
    one_error(done, f"{absent}/a.dump.part cannot be written (No such file or directory)")
    done = cli("backup", "--directory", str(absent), MLTRADING_DATABASE_URL=url)
    one_error(done, f"{absent} is no folder: create it")


def test_a_database_to_verify_in_that_is_missing_or_in_use_is_told_with_the_remedy(
    market: Settings, new_market: Callable[[], Settings], postgres: EmbeddedPostgres, cli: Cli, tmp_path: Path
) -> None:
    file = str(tmp_path / "market.dump")
    verify = f"{name_of(market)}_verify"
    as_admin(postgres, f"DROP DATABASE {verify}")
    url = market.database_url
    done = cli("backup", file, MLTRADING_DATABASE_URL=url)
    one_error(done, verify, "is missing", "sql/roles.sql", "MLTRADING_VERIFY_DATABASE", "docs/backup.md")
    # Pointed at the data itself by mistake.
    before = content(market)
    done = cli("backup", file, MLTRADING_DATABASE_URL=url, MLTRADING_VERIFY_DATABASE=name_of(market))
    one_error(done, f"database '{name_of(market)}'", "is not empty, it holds alerts")
    assert content(market) == before
    assert list(tmp_path.iterdir()) == []
    postgres.apply_roles(name_of(market))
    done = cli("backup", file, MLTRADING_DATABASE_URL=url)
    assert done.code == 0, done.err
    # It stays empty.
    with psycopg.connect(make_conninfo(url or "", dbname=verify)) as connection:
        count = "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        assert connection.execute(count).fetchone() == (0,)


# Which are kept ----------------------------------------------------------------------------------------


def test_old_backups_go_after_a_good_new_one_and_nothing_else_goes(
    market: Settings, cli: Cli, tmp_path: Path
) -> None:
    name, now = name_of(market), datetime.now(UTC)

    def backup_of(days: int) -> Path:
        return tmp_path / f"{name}-{now - timedelta(days=days):%Y%m%dT%H%M%SZ}.dump"

    own = [backup_of(days) for days in range(1, 60)]
    for path in own:
        path.write_bytes(b"PGDMP")
    left_by_a_killed_one = own[0].with_name(f"{own[0].name}.part")
    left_by_a_killed_one.write_bytes(b"PG")
    being_written = own[1].with_name(f"{own[1].name}.part")
    others = [
        tmp_path / f"other-{now - timedelta(days=50):%Y%m%dT%H%M%SZ}.dump",
        tmp_path / f"{name}-20200101T000000Z.dump.gz",
        tmp_path / f"copy-of-{name}-20200101T000000Z.dump",
        tmp_path / f"{name}-20200101T000000Z.dump",  # the name of a backup, and none
        tmp_path / f"{name}-20201301T000000Z.dump",
        being_written,
    ]
    for path in others:
        path.write_bytes(b"PGDMP" if path in others[:3] else b"no backup")
    link = tmp_path / f"{name}-20200102T000000Z.dump"
    link.symlink_to(own[58])
    arguments = ("backup", "--directory", str(tmp_path), "--keep-daily", "7", "--keep-weekly", "4")
    everything = set(tmp_path.iterdir())

    failed = cli(*arguments, MLTRADING_DATABASE_URL=market.database_url, MLTRADING_VERIFY_DATABASE="absent")
    assert failed.code == 2
    assert set(tmp_path.iterdir()) == everything

    with being_written.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = cli(*arguments, "--json", MLTRADING_DATABASE_URL=market.database_url)
    assert done.code == 0, done.err
    left = set(tmp_path.iterdir())
    assert {*others, link} <= left
    new = Path(done.document["file"])
    backups = sorted(path for path in left - {*others, link})
    assert backups[-1] == new
    assert set(backups[-7:]) == {new, *own[:6]}
    assert 7 < len(backups) <= 11
    assert {Path(path) for path in done.document["deleted"]} == {*own, left_by_a_killed_one} - set(backups)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("f.dump", "--keep-daily", "7"), "--keep-daily and --keep-weekly go with --directory only"),
        (("--directory", ".", "--keep-daily", "0"), "--keep-daily 0: give at least 1"),
        (("--directory", ".", "--keep-weekly", "-1"), "--keep-weekly -1: give at least 1"),
    ],
)
def test_wrong_options_are_refused(cli: Cli, arguments: tuple[str, ...], said: str) -> None:
    one_error(cli("backup", *arguments), said)


def test_the_compose_service_backs_up_at_once_and_waits_for_the_night(
    market: Settings, tmp_path: Path
) -> None:
    """Its command and its health check, run as they stand in docker-compose.yaml."""
    compose = yaml.safe_load((PROJECT_ROOT / "docker-compose.yaml").read_text())
    service = compose["services"]["backup"]
    health = service["healthcheck"]["test"][1]
    (tmp_path / "backups").mkdir()
    (tmp_path / "sleep").write_text('#!/bin/sh\necho "$1" > asked\nexec /bin/sleep 600\n')
    (tmp_path / "sleep").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT_ROOT),
        "MLTRADING_DATABASE_URL": market.database_url or "",
    }

    def healthy() -> bool:
        return subprocess.run(["sh", "-c", health], cwd=tmp_path).returncode == 0

    assert not healthy()
    command = [word.replace("$$", "$") for word in service["command"]]
    child = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        until((tmp_path / "asked").exists, child)
        until(lambda: (tmp_path / "asked").read_text(), child)
        assert 0 < int((tmp_path / "asked").read_text()) <= 27 * 3600
        assert [good for *_, good, _ in history(market)] == [True]
        assert healthy()
        child.terminate()
        child.wait(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
