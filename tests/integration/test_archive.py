"""Old rows leave the database for files and come back; nothing is lost, and later features do not notice."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from include.market_simulator import MarketSimulator
from include.mltrading.configuration.settings import PROJECT_ROOT, Settings
from include.mltrading.errors import MLTradingError, UsageError
from include.mltrading.features.definitions import COLUMNS
from include.mltrading.market.calendar import last_sessions
from include.mltrading.market.splits import Found
from include.mltrading.market.yahoo import Split
from include.mltrading.operations import archive, archive_files
from include.mltrading.store import archive as archive_rows
from include.mltrading.store import market_data
from include.mltrading.store.connection import connect
from tests.integration.year_of_bars import NAMES, NOW, TWIN
from tests.integration.year_of_bars import year as year
from tests.integration.year_of_bars import year_template as year_template

pytestmark = pytest.mark.integration

DAY = (NOW - timedelta(days=200)).date()
BEFORE = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC)
# For the tests of all symbols: six weeks of the year.
EARLY_DAY = (NOW - timedelta(days=325)).date()
EARLY = datetime(EARLY_DAY.year, EARLY_DAY.month, EARLY_DAY.day, tzinfo=UTC)
FEW = ["Y000", "Y001", "Y002"]
TABLES = ("market_data", "feature_engineered_data", "bar_revisions", "quarantined_bars")
Cli = Callable[..., Any]
Rows = dict[str, list[tuple[Any, ...]]]


@pytest.fixture
def settings(year: str, tmp_path: Path) -> Settings:
    file = tmp_path / "symbols.txt"
    file.write_text("\n".join(NAMES))
    return Settings(database_url=year, symbols_file=file)


@pytest.fixture
def environment(settings: Settings, simulator: MarketSimulator) -> dict[str, str]:
    assert settings.database_url is not None
    return {
        "MLTRADING_DATABASE_URL": settings.database_url,
        "MLTRADING_SYMBOLS_FILE": str(settings.symbols_file),
        "MLTRADING_YAHOO_URL": simulator.url,
        "MLTRADING_YAHOO_REQUESTS_PER_SECOND": "1000",
    }


def execute(settings: Settings, statement: str, *values: object) -> list[tuple[Any, ...]]:
    assert settings.database_url is not None
    with psycopg.connect(settings.database_url) as connection:
        cursor = connection.execute(statement, values)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []


def everything(settings: Settings, symbols: list[str]) -> Rows:
    """All rows of the tables that are archived, with every value."""
    return {
        table: execute(settings, f"SELECT * FROM {table} WHERE symbol = ANY (%s) ORDER BY 1, 2, 3", symbols)  # noqa: S608
        for table in TABLES
    }


def since(rows: Rows, start: datetime) -> Rows:
    return {table: [row for row in found if row[1] >= start] for table, found in rows.items()}


def soil(settings: Settings, symbol: str, before: datetime = BEFORE) -> None:
    """A revision and two refused bars, one of them old."""
    old, new = before - timedelta(days=3), before + timedelta(days=3)
    execute(
        settings,
        "INSERT INTO bar_revisions"
        " (symbol, timestamp, open, high, low, close, volume, source, correlation_id)"
        " VALUES (%s, %s, 1, 1, 1, 0.1, 5, 'simulated', 'x')", symbol, old,
    )  # fmt: skip
    for when in (old, new):
        execute(
            settings,
            "INSERT INTO quarantined_bars (symbol, timestamp, reason, payload_hash, payload, correlation_id)"
            """ VALUES (%s, %s, 'said "no", twice', 'h', '{"open": "1,\\n2"}', 'x')""", symbol, when,
        )  # fmt: skip


def out(settings: Settings, folder: Path, symbols: list[str] | None = None, day: date = DAY) -> list[str]:
    """Archive; returns the symbols that failed."""
    moved = archive.archive_before(settings, day, folder, symbols or FEW, lambda name: None)
    return [item.symbol for item in moved if item.error]


def back(settings: Settings, *paths: Path) -> list[archive.Moved]:
    return archive.bring_back(settings, archive_files.manifests(paths), lambda name: None)


def test_all_symbols_go_into_files_and_come_back_to_the_last_bit(
    cli: Cli, settings: Settings, environment: dict[str, str], tmp_path: Path
) -> None:
    soil(settings, "Y000", EARLY)
    before = everything(settings, NAMES)
    moved = archive.archive_before(settings, EARLY_DAY, tmp_path / "a", None, lambda name: None)
    rows = Counter[str]()
    for item in moved:
        rows.update(item.rows)
    old = {table: len(rows) - len(since({table: rows}, EARLY)[table]) for table, rows in before.items()}
    assert rows == old
    assert everything(settings, NAMES) == since(before, EARLY)

    # The files alone hold what has gone, and anybody can read them.
    folder = tmp_path / "a" / f"before-{EARLY_DAY}"
    with gzip.open(folder / "Y001.market_data.csv.gz", "rt") as file:
        heading, *lines = file.read().splitlines()
    assert heading.startswith("symbol,timestamp,open,high,low,close,volume,is_final")
    assert len(lines) == sum(row[0] == "Y001" and row[1] < EARLY for row in before["market_data"])

    again = cli("archive", "--before", str(EARLY_DAY), "--directory", str(tmp_path / "a"), **environment)
    nothing = "there is nothing to do: no symbol has rows before that day\n"
    assert (again.code, again.out) == (0, nothing)

    assert not [item for item in back(settings, folder) if item.error]
    assert everything(settings, NAMES) == before
    assert execute(settings, "SELECT count(*) FROM lookback_bars") == [(0,)]
    repeated = cli("archive", "--import", str(folder), **environment)
    assert (repeated.code, repeated.out) == (
        0,
        f"0 symbols imported; {len(NAMES)} had nothing to do, 0 failed\n",
    )
    assert everything(settings, NAMES) == before


def values(settings: Settings, symbol: str) -> tuple[list[datetime], np.ndarray[Any, Any]]:
    rows = execute(
        settings,
        f"SELECT timestamp, {', '.join(COLUMNS)} FROM feature_engineered_data"  # noqa: S608
        " WHERE symbol = %s AND timestamp BETWEEN %s AND %s ORDER BY timestamp",
        symbol, BEFORE, NOW - timedelta(hours=1),
    )  # fmt: skip
    return [row[0] for row in rows], np.array([row[1:] for row in rows], dtype=float)


def bars(settings: Settings, symbol: str) -> list[tuple[Any, ...]]:
    """Final bars from the boundary on, without those that have ended since the test began."""
    return execute(
        settings,
        "SELECT timestamp, open, high, low, close, volume FROM market_data"
        " WHERE symbol = %s AND is_final AND timestamp BETWEEN %s AND %s ORDER BY timestamp",
        symbol, BEFORE, NOW - timedelta(hours=1),
    )  # fmt: skip


def revise_the_first_bar(settings: Settings, symbol: str) -> None:
    """The vendor revises the very first bar after the boundary."""
    [(start, *prices, volume)] = execute(
        settings,
        "SELECT timestamp, open, high, low, close, volume FROM market_data"
        " WHERE symbol = %s AND timestamp >= %s ORDER BY timestamp LIMIT 1", symbol, BEFORE,
    )  # fmt: skip
    revised = market_data.Bar(start, *(price * 0.97 for price in prices), volume)
    with connect(settings) as connection:
        market_data.upsert_bars(connection, symbol, [(revised, True)], source="simulated", correlation_id="r")


def split_four_for_one(settings: Settings, symbol: str) -> None:
    split = Split((NOW - timedelta(days=20)).date(), 4.0)
    with connect(settings) as connection, connection.transaction():
        market_data.record_split(connection, symbol, Found(split, "event", divide=4.0), correlation_id="s")


@pytest.mark.parametrize(
    ("change", "arguments"),
    [
        (revise_the_first_bar, ()),
        (split_four_for_one, ()),
        (lambda settings, symbol: None, ("--full",)),
        (
            lambda settings, symbol: execute(
                settings, "UPDATE symbol_state SET feature_version = '0' WHERE symbol = %s", symbol
            ),
            (),
        ),
    ],
    ids=["a revision at the boundary", "a split", "all anew", "another feature version"],
)
def test_features_after_an_archive_are_those_that_they_would_have_been(
    cli: Cli,
    settings: Settings,
    environment: dict[str, str],
    tmp_path: Path,
    change: Callable[[Settings, str], object],
    arguments: tuple[str, ...],
) -> None:
    # The same walk twice: one is archived, the other is not.
    assert out(settings, tmp_path, ["Y000"]) == []
    for symbol in ("Y000", TWIN):
        change(settings, symbol)
    assert cli("features", "--symbols", f"Y000,{TWIN}", *arguments, **environment).code == 0
    starts, archived = values(settings, "Y000")
    assert starts == values(settings, TWIN)[0]
    np.testing.assert_allclose(archived, values(settings, TWIN)[1], rtol=1e-9, atol=1e-12)
    [(bars, features)] = execute(
        settings,
        "SELECT (SELECT count(*) FROM market_data WHERE symbol = 'Y000'),"
        " (SELECT count(*) FROM feature_engineered_data WHERE symbol = 'Y000')",
    )
    assert bars == features == len(starts)
    assert cli("check", "--recompute", "100", **environment).code == 0


def test_collections_after_an_archive_bring_the_same_and_ask_for_nothing_archived(
    cli: Cli, settings: Settings, environment: dict[str, str], tmp_path: Path
) -> None:
    expected_bars, (expected_starts, expected) = bars(settings, "Y000"), values(settings, "Y000")
    lost = NOW - timedelta(days=6)
    execute(settings, "DELETE FROM market_data WHERE timestamp >= %s", lost)
    execute(settings, "DELETE FROM feature_engineered_data WHERE timestamp >= %s", lost)

    def lacking() -> tuple[object, object]:
        document = cli("check", "--json", **environment).document
        return document["missing_bars"], document["bars_withheld"]

    missing = lacking()
    assert out(settings, tmp_path, ["Y000"]) == []
    # Bars that are missing are reported as before, and none that was archived.
    assert lacking() == missing != ([], [])

    for window in (("--sessions", "3"), ("--period", "1y"), ("--start", str(DAY - timedelta(days=30)))):
        assert cli("collect", "--symbols", "Y000", *window, **environment).code == 0
    assert cli("features", "--symbols", "Y000", **environment).code == 0
    assert execute(
        settings, "SELECT count(*) FROM market_data WHERE symbol = 'Y000' AND timestamp < %s", BEFORE
    ) == [(0,)]
    assert bars(settings, "Y000") == expected_bars
    starts, computed = values(settings, "Y000")
    assert starts == expected_starts
    np.testing.assert_allclose(computed, expected, rtol=1e-9, atol=1e-12)


def test_a_window_of_archived_bars_only_is_refused(
    cli: Cli, settings: Settings, environment: dict[str, str], tmp_path: Path
) -> None:
    assert out(settings, tmp_path, ["Y000"]) == []
    refused = cli("collect", "--symbols", "Y000", "--end", str(DAY), "--sessions", "3", **environment)
    assert refused.code == 2
    assert "archive --import" in refused.out


class Broken(BaseException):
    """Ends the work as a crash does: nobody catches it."""


STEPS = [
    (archive, "write_rows", "before a file"),
    (archive, "read_rows", "after a file"),
    (archive, "sha256", "after the comparison"),
    (archive, "write_manifest", "after all files"),
    (Path, "replace", "between the renames"),
    (archive, "sync_folder", "before the commit"),
]
QUICK = ("after a file", "before the commit")


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        pytest.param(*step, id=when, marks=[] if when in QUICK else [pytest.mark.exhaustive])
        for *step, when in STEPS
    ],
)
def test_a_crash_at_any_step_loses_nothing_and_a_repeat_finishes(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    soil(settings, "Y001")
    before = everything(settings, FEW)
    # Passes for the first symbol and breaks in the second one, at its second call there at the latest.
    original, calls = getattr(owner, name), {"Y001": 0}

    def breaks(*arguments: Any, **others: Any) -> Any:
        if "Y001" in str(arguments) or (
            name in ("write_manifest", "sync_folder") and calls.setdefault("other", 0)
        ):
            calls["Y001"] += 1
            if calls["Y001"] == 2 or name in ("write_manifest", "sync_folder"):
                raise Broken
        calls["other"] = 1
        return original(*arguments, **others)

    monkeypatch.setattr(owner, name, breaks)
    with pytest.raises(Broken):
        out(settings, tmp_path / "a")
    monkeypatch.undo()
    for symbol in FEW:
        kept = since(before, BEFORE) if symbol == "Y000" else before
        assert everything(settings, [symbol]) == {
            table: [row for row in rows if row[0] == symbol] for table, rows in kept.items()
        }
    assert out(settings, tmp_path / "a") == []
    assert everything(settings, FEW) == since(before, BEFORE)
    assert not [item for item in back(settings, tmp_path / "a") if item.error]
    assert everything(settings, FEW) == before


def test_killed_in_the_middle_no_row_is_in_neither_place(
    settings: Settings, environment: dict[str, str], tmp_path: Path
) -> None:
    before = everything(settings, NAMES)
    folder = tmp_path / "a" / f"before-{EARLY_DAY}"
    with connect(settings) as other, other.transaction():
        market_data.lock_symbol(other, NAMES[-1])  # or it might be done before it is killed
        process = subprocess.Popen(
            [
                sys.executable, "-m", "include.mltrading", "archive",
                "--before", str(EARLY_DAY), "--directory", str(tmp_path / "a"),
            ],
            cwd=PROJECT_ROOT, env={**os.environ, **environment, "PYTHONPATH": str(PROJECT_ROOT)},
        )  # fmt: skip
        while len(list(folder.glob("*.json"))) < 3:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    # The server may still be at the commit of a symbol, and notice only then that nobody is there.
    others = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    while execute(settings, others):
        time.sleep(0.01)
    gone = [
        row[0]
        for row in execute(settings, "SELECT symbol FROM symbol_state WHERE archived_before IS NOT NULL")
    ]
    assert 2 <= len(gone) < len(NAMES)
    assert all((folder / f"{symbol}.json").exists() for symbol in gone)
    left = [symbol for symbol in NAMES if symbol not in gone]
    assert everything(settings, left) == {
        table: [row for row in rows if row[0] in left] for table, rows in before.items()
    }
    assert out(settings, tmp_path / "a", NAMES, EARLY_DAY) == []
    assert everything(settings, NAMES) == since(before, EARLY)
    assert not [item for item in back(settings, tmp_path / "a") if item.error]
    assert everything(settings, NAMES) == before


@pytest.mark.parametrize("damage", [b"", b"no gzip", "half", "other value"])
def test_a_file_that_does_not_hold_what_was_written_deletes_nothing(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes | str
) -> None:
    before = everything(settings, FEW)
    original = archive.write_rows

    def damaged(path: Path, *arguments: Any) -> None:
        original(path, *arguments)
        content = path.read_bytes()
        if isinstance(damage, bytes):
            path.write_bytes(damage)
        elif damage == "half":
            path.write_bytes(content[: len(content) // 2])
        elif ".market_data." in path.name:
            path.write_bytes(gzip.compress(gzip.decompress(content).replace(b"simulated", b"simulates", 1)))

    monkeypatch.setattr(archive, "write_rows", damaged)
    assert out(settings, tmp_path / "a") == FEW
    assert everything(settings, FEW) == before


def test_a_symbol_that_somebody_holds_fails_alone(settings: Settings, tmp_path: Path) -> None:
    held = Settings(database_url=f"{settings.database_url}?options=-c%20lock_timeout%3D200ms")
    held = dataclasses.replace(held, symbols_file=settings.symbols_file)
    with connect(settings) as other, other.transaction():
        market_data.lock_symbol(other, "Y001")
        assert out(held, tmp_path) == ["Y001"]
    assert out(settings, tmp_path) == []


def test_a_full_or_closed_folder_is_an_error_that_names_it(
    cli: Cli, settings: Settings, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = cli("archive", "--before", str(DAY), "--directory", str(tmp_path / "file"), **environment)
    assert done.code == 1
    assert str(tmp_path / "file") in done.err
    assert done.err.count("\n") == 1


def test_a_damaged_archive_is_not_imported(settings: Settings, tmp_path: Path) -> None:
    assert out(settings, tmp_path / "a") == []
    after = everything(settings, FEW)
    file = tmp_path / "a" / f"before-{DAY}" / "Y001.market_data.csv.gz"
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()).replace(b"simulated", b"simulates", 1)))
    errors = [item.error for item in back(settings, tmp_path / "a") if item.error]
    assert len(errors) == 1
    assert str(file) in errors[0]
    assert since(everything(settings, ["Y001"]), BEFORE) == {
        table: [row for row in rows if row[0] == "Y001"] for table, rows in after.items()
    }
    assert everything(settings, ["Y001"])["market_data"][0][1] >= BEFORE


def test_archives_come_back_in_the_order_in_which_they_left(settings: Settings, tmp_path: Path) -> None:
    before = everything(settings, FEW)
    earlier = DAY - timedelta(days=60)
    assert out(settings, tmp_path, day=earlier) == []
    assert out(settings, tmp_path) == []
    first, second = tmp_path / f"before-{earlier}", tmp_path / f"before-{DAY}"
    # No row is in both.
    counted = sum(
        json.loads((folder / "Y000.json").read_text())["tables"]["market_data"]["rows"]
        for folder in (first, second)
    )
    assert counted == sum(row[0] == "Y000" and row[1] < BEFORE for row in before["market_data"])

    errors = [item.error for item in back(settings, first)]
    assert all(error and "later archive" in error for error in errors)
    assert everything(settings, FEW) == since(before, BEFORE)

    assert not [item.error for item in back(settings, second) if item.error]
    middle = datetime(earlier.year, earlier.month, earlier.day, tzinfo=UTC)
    assert everything(settings, FEW) == since(before, middle)
    # Features of what came back still look back to what did not.
    assert execute(settings, "SELECT count(*) > 0 FROM lookback_bars WHERE timestamp < %s", middle) == [
        (True,)
    ]
    assert not [item.error for item in back(settings, first, second) if item.error]
    assert everything(settings, FEW) == before


def test_an_archive_comes_back_on_the_split_basis_of_today(
    cli: Cli, settings: Settings, environment: dict[str, str], tmp_path: Path
) -> None:
    assert out(settings, tmp_path, ["Y000"]) == []
    for symbol in ("Y000", TWIN):
        split_four_for_one(settings, symbol)
    assert cli("features", "--symbols", f"Y000,{TWIN}", **environment).code == 0
    assert cli("archive", "--import", str(tmp_path), **environment).code == 0
    assert cli("features", "--symbols", "Y000", **environment).code == 0
    for table, columns in (
        ("market_data", "timestamp, open, high, low, close, volume"),
        ("feature_engineered_data", f"timestamp, {', '.join(COLUMNS)}"),
    ):
        rows = [
            execute(settings, f"SELECT {columns} FROM {table} WHERE symbol = %s ORDER BY timestamp", symbol)  # noqa: S608
            for symbol in ("Y000", TWIN)
        ]
        assert [row[0] for row in rows[0]] == [row[0] for row in rows[1]]
        one, other = (np.array([row[1:] for row in found], dtype=float) for found in rows)
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_an_archive_on_another_basis_than_the_record_tells_is_refused(
    settings: Settings, tmp_path: Path
) -> None:
    assert out(settings, tmp_path, ["Y000"]) == []
    execute(settings, "UPDATE lookback_bars SET close = close / 2, low = low / 2 WHERE symbol = 'Y000'")
    [moved] = back(settings, tmp_path)
    assert moved.error is not None
    assert "split that is not on record" in moved.error


def test_an_archive_fills_a_new_database(settings: Settings, database: str, tmp_path: Path) -> None:
    before = everything(settings, FEW)
    assert out(settings, tmp_path) == []
    new = dataclasses.replace(settings, database_url=database)
    assert not [item.error for item in back(new, tmp_path) if item.error]
    old = {table: [row for row in rows if row[1] < BEFORE] for table, rows in before.items()}
    assert everything(new, FEW) == old
    assert execute(new, "SELECT DISTINCT stale_from, feature_version FROM symbol_state") == [(None, "1")]


def test_a_database_of_another_source_takes_no_archive(
    settings: Settings, database: str, tmp_path: Path
) -> None:
    assert out(settings, tmp_path) == []
    new = dataclasses.replace(settings, database_url=database)
    execute(new, "INSERT INTO data_source (source) VALUES ('yahoo')")
    assert all(item.error and "simulated" in item.error for item in back(new, tmp_path))
    assert everything(new, FEW) == {table: [] for table in TABLES}


def test_a_date_in_the_pipelines_window_is_refused_with_the_latest_possible_one(
    cli: Cli, settings: Settings, environment: dict[str, str], tmp_path: Path
) -> None:
    latest = last_sessions(60, datetime.now(UTC))[0].day
    before = everything(settings, FEW)
    folder = ("--directory", str(tmp_path / "a"))
    refused = cli("archive", "--before", str(latest + timedelta(days=1)), *folder, **environment)
    assert refused.code == 2
    assert f"latest date possible is {latest}" in refused.err
    assert everything(settings, FEW) == before
    done = cli("archive", "--before", str(latest), *folder, "--symbols", "Y000", "--json", **environment)
    assert done.code == 0
    assert done.document["rows"].keys() == {"market_data", "feature_engineered_data"}


def test_a_symbol_whose_gap_is_yet_to_be_closed_holds_the_date_back(
    settings: Settings, tmp_path: Path
) -> None:
    for table in TABLES[:2]:
        execute(settings, f"DELETE FROM {table} WHERE symbol = 'Y001' AND timestamp >= %s", BEFORE)  # noqa: S608
    with pytest.raises(UsageError, match=r"latest date possible is .* newest bar of Y001"):
        out(settings, tmp_path)


def test_features_that_are_stale_there_are_computed_first(settings: Settings, tmp_path: Path) -> None:
    execute(
        settings, "UPDATE symbol_state SET stale_from = %s WHERE symbol = 'Y001'", BEFORE - timedelta(days=9)
    )
    before = everything(settings, FEW)
    with pytest.raises(UsageError, match="features --symbols Y001"):
        out(settings, tmp_path)
    assert everything(settings, FEW) == before


def test_bars_that_change_while_others_are_archived_are_seen_under_the_lock(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = archive._archive

    def stale_meanwhile(connection: Any, symbol: str, *arguments: Any) -> dict[str, int]:
        if symbol == "Y001":
            execute(
                settings,
                "UPDATE symbol_state SET stale_from = %s WHERE symbol = 'Y001'",
                BEFORE - timedelta(9),
            )
        return original(connection, symbol, *arguments)

    monkeypatch.setattr(archive, "_archive", stale_meanwhile)
    assert out(settings, tmp_path) == ["Y001"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--before", "soon"), "'soon'"),
        (("--before", str(DAY), "--symbols", "NOSUCH"), "NOSUCH"),
        (("--import", "/nowhere"), "/nowhere"),
        (("--before", str(DAY)), "--directory"),
    ],
)
def test_wrong_usage_is_told_by_its_name(
    cli: Cli, environment: dict[str, str], tmp_path: Path, arguments: tuple[str, ...], named: str
) -> None:
    if named != "--directory":
        environment = {**environment, "MLTRADING_STATE_DIR": str(tmp_path)}
    elif (PROJECT_ROOT / ".state").is_dir():
        pytest.skip("this checkout has a state folder")
    finished = cli("archive", *arguments, **environment)
    assert finished.code == 2
    assert named in finished.err


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"format": 2}')
    with pytest.raises(UsageError, match="format 2"):
        archive_files.manifests([tmp_path])
    assert issubclass(UsageError, MLTradingError)


def test_rows_are_staged_for_every_archived_table() -> None:
    assert set(TABLES) < set(archive_rows.TABLES)
