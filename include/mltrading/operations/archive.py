"""Old bars and what belongs to them into compressed CSV files, out of the database, and back.

A symbol is archived in one transaction: its rows are taken out, written to files, read back and compared, the
files brought to the disk, and only then is the transaction committed. Whatever ends it before that leaves the
rows in the database; the files that may be left lie are written anew by the next call.

What later features look back to stays in the database, so that they come out the same as before.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from include.mltrading.configuration.settings import PROJECT_ROOT, Settings
from include.mltrading.configuration.symbols import read_symbols_file
from include.mltrading.errors import MLTradingError, UsageError
from include.mltrading.features.definitions import FEATURE_VERSION
from include.mltrading.market.calendar import last_sessions, new_york_date
from include.mltrading.operations.backup import sync_folder
from include.mltrading.pipeline.window import HEALED_SESSIONS, MOST_SESSIONS
from include.mltrading.store import archive, feature_table, market_data
from include.mltrading.store.connection import Connection, connect, database_errors
from include.mltrading.store.migrations import require_current_schema
from include.mltrading.store.queries import query

_FORMAT = 1
_PIECE = 1 << 16
_NAMED = 10

Report = Callable[[str], None]


class Moved(NamedTuple):
    """What was done with one symbol. rows: by table; empty where there was nothing to do."""

    symbol: str
    rows: dict[str, int]
    error: str | None = None


@dataclass(frozen=True)
class _Manifest:
    """SYMBOL.json, written last: what its files hold.

    start: the rows begin there, None: with the first ones ever. before: all are older. archived_at: by the
    database's clock. tables: name -> (file, rows, SHA-256 of the file).
    """

    path: Path
    symbol: str
    source: str | None
    start: datetime | None
    before: datetime
    archived_at: datetime
    feature_version: str
    tables: dict[str, tuple[str, int, str]]


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
        with _file_errors(target):
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
    with connection.transaction(), _file_errors(folder):
        market_data.lock_symbol(connection, symbol)
        state = feature_table.lock_state(connection, symbol)
        if state.archived_before is not None and state.archived_before >= before:
            return {}
        if _is_stale(state, before):
            raise MLTradingError(
                f"{symbol}: its bars have changed meanwhile; compute its features, then repeat"
            )
        source = connection.execute(query("vendor/data_source")).fetchone()
        archive.take_out(connection, symbol, before)
        tables, partial = {}, {}
        for table in archive.TABLES:
            name = f"{symbol}.{table}.csv.gz"
            digest = archive.digest_out(connection, table)
            if not digest.rows:
                (folder / name).unlink(missing_ok=True)  # of an attempt that was broken off
                continue
            written = _written(folder / f".{name}.partial", archive.copy_out(connection, table))
            partial[written] = folder / name
            _read_back(connection, table, written)
            if archive.digest_in(connection, table) != digest:
                raise MLTradingError(
                    f"{symbol}: {written} does not hold what was written to it; nothing was deleted"
                )
            tables[table] = {"file": name, "rows": digest.rows, "sha256": _sha256(written)}
        manifest = {
            "format": _FORMAT,
            "symbol": symbol,
            "source": source[0] if source else None,
            "start": state.archived_before.isoformat() if state.archived_before else None,
            "before": before.isoformat(),
            "archived_at": _clock(connection).isoformat(),
            "feature_version": state.feature_version,
            "tables": tables,
        }
        written = _written(
            folder / f".{symbol}.json.partial", [json.dumps(manifest, indent=1).encode()], compress=False
        )
        for path, final in [*partial.items(), (written, folder / f"{symbol}.json")]:
            path.replace(final)
        sync_folder(folder)
    return {table: int(str(entry["rows"])) for table, entry in tables.items()}


def _clock(connection: Connection) -> datetime:
    row = connection.execute(query("backup/clock")).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM
    instant: datetime = row[0]
    return instant


def _written(path: Path, pieces: Any, *, compress: bool = True) -> Path:
    """The file with the pieces, on the disk and not only in the system's memory."""
    with path.open("wb") as file:
        if compress:
            # No name and no time within: the same rows give the same bytes.
            with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                for piece in pieces:
                    packed.write(piece)
        else:
            for piece in pieces:
                file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return path


def _read_back(connection: Connection, table: str, path: Path) -> list[str]:
    """Stage the rows of a file for their way back; returns its columns."""
    with gzip.open(path, "rb") as file:
        heading = file.readline()
        columns = heading.decode().strip().split(",")
        archive.copy_in(connection, table, columns, _pieces(heading, file))
    return columns


def _pieces(heading: bytes, file: gzip.GzipFile) -> Iterator[bytes]:
    yield heading
    while piece := file.read(_PIECE):
        yield piece


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _file_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MLTradingError(
            f"{error.filename or folder}: {error.strerror or error}; nothing was changed in the database"
        ) from None
    except (EOFError, zlib.error) as error:  # gzip's, beside its OSErrors
        raise MLTradingError(f"{folder}: {error}; nothing was changed in the database") from None


# Back ---------------------------------------------------------------------------------------------------


def manifests(paths: Sequence[Path]) -> list[_Manifest]:
    """The archives that the paths name (folders, or files of a symbol), in the order of their way back.

    Raises UsageError for a path that is none.
    """
    files: dict[Path, None] = {}
    for path in paths:
        try:
            there = path.exists()
            found = sorted(path.rglob("*.json")) if path.is_dir() else [_manifest_beside(path)]
        except OSError as error:
            raise UsageError(f"{path} cannot be read ({error.strerror}): give a path that can") from None
        if not found or not there:
            raise UsageError(f"{path}: no archive; give a folder before-DATE or one of a symbol's files")
        files.update(dict.fromkeys(found))
    # The newest first: what was archived last must come back first.
    read = [_manifest(path) for path in files]
    return sorted(sorted(read, key=lambda item: item.symbol), key=lambda item: item.before, reverse=True)


def _manifest_beside(path: Path) -> Path:
    return path if path.suffix == ".json" else path.parent / f"{path.name.partition('.')[0]}.json"


def _manifest(path: Path) -> _Manifest:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']}, this program reads {_FORMAT}")
        tables = {
            table: (entry["file"], int(entry["rows"]), entry["sha256"])
            for table, entry in content["tables"].items()
            if table in archive.TABLES
        }
        start = content["start"]
        return _Manifest(
            path, content["symbol"], content["source"],
            datetime.fromisoformat(start) if start else None,
            datetime.fromisoformat(content["before"]), datetime.fromisoformat(content["archived_at"]),
            content["feature_version"], tables,
        )  # fmt: skip
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; an archive has a .json file for each symbol") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: is no archive of this program ({error})") from None


def bring_back(settings: Settings, archives: Sequence[_Manifest], on_symbol: Report) -> list[Moved]:
    """Put archived rows back where they came from; what is there already is left alone."""
    with connect(settings) as connection:
        require_current_schema(connection)
        archive.prepare(connection)
        done = []
        for manifest in archives:
            done.append(_guarded(connection, manifest.symbol, lambda: _bring_back(connection, manifest)))  # noqa: B023
            on_symbol(manifest.symbol)
    return done


def _bring_back(connection: Connection, manifest: _Manifest) -> dict[str, int]:
    symbol = manifest.symbol
    with connection.transaction(), _file_errors(manifest.path.parent):
        market_data.lock_symbol(connection, symbol)
        state = feature_table.lock_state(connection, symbol)
        if _is_there(connection, manifest, state):
            return {}
        if manifest.source is not None:
            market_data.claim_source(connection, manifest.source)
        columns = {}
        for table, (name, _, checksum) in manifest.tables.items():
            file = manifest.path.parent / name
            if _sha256(file) != checksum:
                raise MLTradingError(f"{file}: is not as it was written (SHA-256); take it from a backup")
            columns[table] = _read_back(connection, table, file)
        splits = archive.rebase(connection, symbol, manifest.archived_at)
        if archive.strangers(connection, symbol):
            raise MLTradingError(
                f"{symbol}: the bars in {manifest.path} are not those that later features look back to, as "
                "after a split that is not on record; nothing was imported"
            )
        current = manifest.feature_version == FEATURE_VERSION and not splits
        archive.put_back(connection, symbol, columns, manifest.start, FEATURE_VERSION if current else None)
    return {table: rows for table, (_, rows, _) in manifest.tables.items()}


def _is_there(connection: Connection, manifest: _Manifest, state: feature_table.State) -> bool:
    """Whether the rows are back already. Raises MLTradingError when they would not fit to what is stored."""
    symbol, archived = manifest.symbol, state.archived_before
    if archived == manifest.before:
        return False
    if archived is not None and archived > manifest.before:
        raise MLTradingError(
            f"{symbol}: its bars from {manifest.before:%Y-%m-%d} to {archived:%Y-%m-%d} are in a later "
            "archive: import that one first, or both at once"
        )
    rows = manifest.tables.get(archive.BARS, ("", 0, ""))[1]
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
