from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import SchemaError
from include.mltrading.features.definitions import COLUMNS
from include.mltrading.store.connection import connect
from include.mltrading.store.migrations import (
    MIGRATIONS_FOLDER,
    available,
    made_by_migrations,
    migrate,
    require_current_schema,
)

pytestmark = pytest.mark.integration


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the migrations that a test may change."""
    copy = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS_FOLDER, copy)
    return copy


def tables(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {row[0] for row in rows}


def test_a_new_database_gets_every_table_and_a_second_call_changes_nothing(empty_database: str) -> None:
    with connect(Settings(database_url=empty_database)) as connection:
        assert migrate(connection) == [migration.name for migration in available()]
        assert migrate(connection) == []
        require_current_schema(connection)
    assert tables(empty_database) >= {
        "market_data", "feature_engineered_data", "symbol_state", "bar_revisions", "quarantined_bars",
        "corporate_actions", "processing_history", "schema_migrations",
    }  # fmt: skip


def test_two_callers_at_once_apply_each_migration_once(empty_database: str) -> None:
    applied: list[list[str]] = []

    def call() -> None:
        with connect(Settings(database_url=empty_database)) as connection:
            applied.append(migrate(connection))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, applied)) == [0, 0, 0, len(available())]


def test_a_missing_and_an_old_schema_are_refused_naming_the_remedy(empty_database: str, folder: Path) -> None:
    with connect(Settings(database_url=empty_database)) as connection:
        with pytest.raises(SchemaError, match=r"no schema yet.*include\.mltrading migrate"):
            require_current_schema(connection)
        migrate(connection)
        newest = f"{len(available()) + 1:04d}_more"
        (folder / f"{newest}.sql").write_text("CREATE TABLE more ()")
        with pytest.raises(SchemaError, match=rf"lacks {newest}.*include\.mltrading migrate"):
            require_current_schema(connection, folder)


def test_an_edited_migration_is_refused_and_nothing_is_applied(empty_database: str, folder: Path) -> None:
    with connect(Settings(database_url=empty_database)) as connection:
        migrate(connection, folder)
        first = next(iter(sorted(folder.glob("*.sql"))))
        first.write_text(first.read_text() + "\n-- edited\n")
        (folder / f"{len(available()) + 1:04d}_more.sql").write_text("CREATE TABLE more ()")
        with pytest.raises(SchemaError, match=f"{first.stem} was edited"):
            migrate(connection, folder)
    assert "more" not in tables(empty_database)


def test_a_failing_migration_leaves_nothing_of_itself(empty_database: str, folder: Path) -> None:
    (folder / f"{len(available()) + 1:04d}_half.sql").write_text("CREATE TABLE half (); SELECT 1 / 0")
    with connect(Settings(database_url=empty_database)) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            migrate(connection, folder)
        assert tables(empty_database) == set()


def test_a_database_newer_than_the_program_is_refused(empty_database: str, folder: Path) -> None:
    (folder / f"{len(available()) + 1:04d}_future.sql").write_text("CREATE TABLE future ()")
    with connect(Settings(database_url=empty_database)) as connection:
        migrate(connection, folder)
        with pytest.raises(SchemaError, match="newer than the program"):
            require_current_schema(connection)


def test_what_the_migrations_make_is_all_there_is(database: str) -> None:
    """A restore removes these and nothing else."""
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            "SELECT relkind::text, relname FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')"
        ).fetchall()
    assert sorted(made_by_migrations("TABLE")) == sorted(name for kind, name in rows if kind == "r")
    assert sorted(made_by_migrations("VIEW")) == sorted(name for kind, name in rows if kind == "v")
    assert {kind for kind, _ in rows} == {"r", "v"}


def test_a_view_that_is_made_again_for_another_column_counts_once(folder: Path) -> None:
    views = made_by_migrations("VIEW", folder)
    again = "".join(f"DROP VIEW {name};\nCREATE VIEW {name} AS SELECT 1;\n" for name in views)
    (folder / f"{len(available()) + 1:04d}_again.sql").write_text(again)
    assert made_by_migrations("VIEW", folder) == views


@pytest.mark.parametrize("name", ["0099_gap.sql", "first.sql", "0001_twice.sql"])
def test_a_wrong_file_name_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("SELECT 1")
    with pytest.raises(
        SchemaError, match=rf"{folder}/0.*(name it NNNN|restore the folder)|{folder}/{name}: name it"
    ):
        available(folder)


def test_the_table_has_a_column_for_each_feature(database: str) -> None:
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            "SELECT column_name, data_type FROM information_schema.columns "
            "WHERE table_name = 'feature_engineered_data'"
        ).fetchall()
    others = {"symbol", "timestamp", "feature_version", "created_at", "updated_at"}
    columns = {name: kind for name, kind in rows if name not in others}
    assert columns == dict.fromkeys(COLUMNS, "double precision")


BAR = {
    "symbol": "AAPL", "timestamp": "2026-01-20 14:30+00", "open": 10, "high": 11, "low": 9, "close": 10.5,
    "volume": 100, "is_final": True, "source": "simulated",
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"open": "NaN"}, {"high": "Infinity"}, {"low": 0}, {"close": -1}, {"low": 10.2}, {"high": 10.4},
        {"volume": -1}, {"symbol": "a b"}, {"symbol": "-RF"}, {"symbol": "A\n"}, {"source": ""},
        {"open": None}, {"is_final": None},
    ],
)  # fmt: skip
def test_the_table_itself_refuses_what_is_no_bar(database: str, change: dict[str, Any]) -> None:
    insert = (
        "INSERT INTO market_data (symbol, timestamp, open, high, low, close, volume, is_final, source) "
        "VALUES (%(symbol)s, %(timestamp)s, %(open)s, %(high)s, %(low)s, %(close)s, %(volume)s, "
        "%(is_final)s, %(source)s)"
    )
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(insert, BAR)
        with pytest.raises(psycopg.errors.IntegrityError):
            connection.execute(insert, {**BAR, "timestamp": "2026-01-20 15:30+00", **change})


def test_the_guides_diagnostic_queries_run_as_they_are_written(database: str) -> None:
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT MAX(timestamp) FROM market_data").fetchall() == [(None,)]
        assert connection.execute(
            "SELECT COUNT(*) FROM feature_engineered_data WHERE created_at >= NOW() - INTERVAL '1 day'"
        ).fetchall() == [(0,)]
        assert (
            connection.execute(
                "SELECT symbol, MAX(timestamp) FROM market_data GROUP BY symbol LIMIT 10"
            ).fetchall()
            == []
        )
