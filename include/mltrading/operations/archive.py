"""Old bars and what belongs to them into compressed CSV files, out of the database, and back.

A symbol is archived in one transaction: its rows are taken out, written to files, read back and compared, the
files brought to the disk, and only then is the transaction committed. Whatever ends it before that leaves the
rows in the database; the files that may be left lie are written anew by the next call.

What later features look back to stays in the database, so that they come out the same as before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import NamedTuple

import psycopg

from include.mltrading.configuration.settings import PROJECT_ROOT, Settings
from include.mltrading.configuration.symbols import read_symbols_file
from include.mltrading.errors import MLTradingError, UsageError
from include.mltrading.features.definitions import FEATURE_VERSION
from include.mltrading.market.calendar import last_sessions, new_york_date
from include.mltrading.operations.archive_files import (
    Manifest,
    TableFile,
    file_errors,
    read_rows,
    sha256,
    write_manifest,
    write_rows,
)
from include.mltrading.operations.backup import sync_folder
from include.mltrading.pipeline.window import HEALED_SESSIONS, MOST_SESSIONS
from include.mltrading.store import archive, feature_table, market_data
from include.mltrading.store.connection import Connection, connect, database_errors
from include.mltrading.store.migrations import require_current_schema
from include.mltrading.store.queries import query

_NAMED = 10

Report = Callable[[str], None]


class Moved(NamedTuple):
    """What was done with one symbol. rows: by table; empty where there was nothing to do."""

    symbol: str
    rows: dict[str, int]
    error: str | None = None


# Out ----------------------------------------------------------------------------------------------------


def default_folder() -> Path:
    """Where archives go unless the caller says otherwise. Raises UsageError where nothing is sure to last."""
    state = os.environ.get("MLTRADING_STATE_DIR")
    if state is None and not (PROJECT_ROOT / ".state").is_dir():
        raise UsageError(
            "--directory: name a folder for the files, one that outlives this machine or container"
        )
    return (Path(state) if state else PROJECT_ROOT / ".state") / "archive"


def archive_before(
    settings: Settings, day: date, folder: Path, symbols: list[str] | None, on_symbol: Report
) -> list[Moved]:
    """Archive the rows of before `day` (UTC) of the symbols (None: all that are stored).

    folder: gets a folder before-DAY with the files of each symbol. on_symbol: called with each symbol that is
    done. Raises UsageError, before anything is done, for a day that is too late.
    """
    before = datetime.combine(day, time(), UTC)
    with connect(settings) as connection:
        require_current_schema(connection)
        stored = archive.stored(connection, symbols)
        unknown = sorted(set(symbols or ()) - {item.symbol for item in stored})
        if unknown:
            raise UsageError(f"--symbols {', '.join(unknown)}: nothing is stored of it")
        _require_early_enough(day, before, stored, read_symbols_file(settings.symbols_file))
        wanted = [item.symbol for item in stored if item.oldest is not None and item.oldest < before]
        if not wanted:
            return []
        target = folder / f"before-{day.isoformat()}"
        with file_errors(target):
            target.mkdir(mode=0o750, parents=True, exist_ok=True)
        archive.prepare(connection)
        done = []
        for symbol in wanted:
            done.append(_guarded(connection, symbol, lambda: _archive(connection, symbol, before, target)))  # noqa: B023
            on_symbol(symbol)
    return done


def most_symbols(settings: Settings) -> int:
    """How many symbols are stored, at most so many are archived."""
    with connect(settings) as connection:
        require_current_schema(connection)
        return len(archive.stored(connection, None))


def _require_early_enough(
    day: date, before: datetime, stored: Sequence[archive.Stored], universe: Sequence[str]
) -> None:
    """The pipeline must find what it works on: its longest window, and each symbol's newest bars."""
    latest = last_sessions(MOST_SESSIONS, datetime.now(UTC))[0].day
    why = f"a run may work on the last {MOST_SESSIONS} sessions"
    for item in stored:
        if item.symbol in universe and item.newest_final is not None:
            first = last_sessions(HEALED_SESSIONS, item.newest_final)[0].day
            if first < latest:
                latest = first
                why = (
                    f"the newest bar of {item.symbol} is of {new_york_date(item.newest_final)}: "
                    "collect it, or take it from the symbols file"
                )
    stale = [
        item
        for item in stored
        if item.oldest is not None and item.oldest < before and _is_stale(item, before)
    ]
    if day > latest:
        raise UsageError(f"--before {day}: the latest date possible is {latest}, since {why}")
    if stale:
        names = ",".join(item.symbol for item in stale[:_NAMED])
        raise UsageError(
            f"--before {day}: features of {len(stale)} symbols are not up to date there, so the archive "
            f"would lack them; run `python -m include.mltrading features --symbols {names}` first, or give a "
            f"date up to {min(_computed_until(item) for item in stale)}"
        )


def _is_stale(item: archive.Stored | feature_table.State, before: datetime) -> bool:
    stale_from = item.stale_from
    return item.feature_version != FEATURE_VERSION or (stale_from is not None and stale_from < before)


def _computed_until(item: archive.Stored) -> date:
    assert item.oldest is not None  # noqa: S101 - only such are asked about
    from_scratch = item.feature_version != FEATURE_VERSION or item.stale_from is None
    return (item.oldest if from_scratch else item.stale_from or item.oldest).date()


def _guarded(connection: Connection, symbol: str, work: Callable[[], dict[str, int]]) -> Moved:
    """One symbol's failure is its own, its transaction is rolled back; a lost connection is everybody's."""
    try:
        return Moved(symbol, work())
    except MLTradingError as error:
        return Moved(symbol, {}, str(error))
    except psycopg.Error as error:
        if connection.closed:
            raise
        return Moved(symbol, {}, f"{symbol}: {database_errors(error)}")


def _archive(connection: Connection, symbol: str, before: datetime, folder: Path) -> dict[str, int]:
    with connection.transaction(), file_errors(folder):
        market_data.lock_symbol(connection, symbol)
        state = feature_table.lock_state(connection, symbol)
        if state.archived_before is not None and state.archived_before >= before:
            return {}
        if _is_stale(state, before):
            raise MLTradingError(
                f"{symbol}: its bars have changed meanwhile; compute its features, then repeat"
            )
        source = connection.execute(query("vendor/data_source")).fetchone()
        clock = connection.execute(query("backup/clock")).fetchone()
        archive.take_out(connection, symbol, before)
        tables = _write_tables(connection, symbol, folder)
        manifest = Manifest(
            path=folder / f"{symbol}.json",
            symbol=symbol,
            source=source[0] if source else None,
            start=state.archived_before,
            before=before,
            archived_at=clock[0] if clock else before,
            feature_version=state.feature_version,
            tables=tables,
        )
        write_manifest(manifest, _partial(manifest.path))
        for path in [*(folder / table.file for table in tables.values()), manifest.path]:
            _partial(path).replace(path)
        sync_folder(folder)
    return {table: written.rows for table, written in tables.items()}


def _write_tables(connection: Connection, symbol: str, folder: Path) -> dict[str, TableFile]:
    """Write what was taken out, under names that no import reads yet, and compare what is read back."""
    tables = {}
    for table in archive.TABLES:
        path = folder / f"{symbol}.{table}.csv.gz"
        digest = archive.digest_out(connection, table)
        if not digest.rows:
            path.unlink(missing_ok=True)  # of an attempt that was broken off
            continue
        partial = _partial(path)
        write_rows(partial, archive.copy_out(connection, table))
        with read_rows(partial) as (columns, pieces):
            archive.copy_in(connection, table, columns, pieces)
        if archive.digest_in(connection, table) != digest:
            raise MLTradingError(
                f"{symbol}: {partial} does not hold what was written to it; nothing was deleted"
            )
        tables[table] = TableFile(file=path.name, rows=digest.rows, sha256=sha256(partial))
    return tables


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


# Back ---------------------------------------------------------------------------------------------------


def bring_back(settings: Settings, archives: Sequence[Manifest], on_symbol: Report) -> list[Moved]:
    """Put archived rows back where they came from; what is there already is left alone."""
    with connect(settings) as connection:
        require_current_schema(connection)
        archive.prepare(connection)
        done = []
        for manifest in archives:
            done.append(_guarded(connection, manifest.symbol, lambda: _bring_back(connection, manifest)))  # noqa: B023
            on_symbol(manifest.symbol)
    return done


def _bring_back(connection: Connection, manifest: Manifest) -> dict[str, int]:
    symbol = manifest.symbol
    with connection.transaction(), file_errors(manifest.path.parent):
        market_data.lock_symbol(connection, symbol)
        state = feature_table.lock_state(connection, symbol)
        if _is_there(connection, manifest, state):
            return {}
        if manifest.source is not None:
            market_data.claim_source(connection, manifest.source)
        columns: dict[str, list[str]] = {}
        for table, written in manifest.tables.items():
            file = manifest.path.parent / written.file
            if sha256(file) != written.sha256:
                raise MLTradingError(f"{file}: is not as it was written (SHA-256); take it from a backup")
            with read_rows(file) as (columns[table], pieces):
                archive.copy_in(connection, table, columns[table], pieces)
        splits = archive.rebase(connection, symbol, manifest.archived_at)
        if archive.strangers(connection, symbol):
            raise MLTradingError(
                f"{symbol}: the bars in {manifest.path} are not those that later features look back to, as "
                "after a split that is not on record; nothing was imported"
            )
        current = manifest.feature_version == FEATURE_VERSION and not splits
        archive.put_back(connection, symbol, columns, manifest.start, FEATURE_VERSION if current else None)
    return {table: written.rows for table, written in manifest.tables.items()}


def _is_there(connection: Connection, manifest: Manifest, state: feature_table.State) -> bool:
    """Whether the rows are back already. Raises MLTradingError when they would not fit to what is stored."""
    symbol, archived = manifest.symbol, state.archived_before
    if archived == manifest.before:
        return False
    if archived is not None and archived > manifest.before:
        raise MLTradingError(
            f"{symbol}: its bars from {manifest.before:%Y-%m-%d} to {archived:%Y-%m-%d} are in a later "
            "archive: import that one first, or both at once"
        )
    bars = manifest.tables.get(archive.BARS)
    rows = bars.rows if bars else 0
    if market_data.oldest_bar(connection, symbol) is None and archived is None:
        return False  # a database that knows nothing of the symbol
    if archive.bars_between(connection, symbol, manifest.start, manifest.before) == rows and (
        archived is None or (manifest.start is not None and archived <= manifest.start)
    ):
        return True
    raise MLTradingError(
        f"{symbol}: the archive {manifest.path} does not fit to what is stored; give the one whose rows end "
        "where the stored ones begin"
    )
