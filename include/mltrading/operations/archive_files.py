"""The files of an archive: for each symbol a manifest, and its rows as compressed CSV, a file a table."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal

from psycopg.abc import Buffer
from pydantic import BaseModel, Field, ValidationError

from include.mltrading.errors import MLTradingError, UsageError

_PIECE = 1 << 16


class TableFile(BaseModel):
    """The rows of one table. file: its name, in the manifest's folder. sha256: of the whole file."""

    file: str
    rows: int
    sha256: str


class Manifest(BaseModel):
    """SYMBOL.json, written last: what its files hold.

    start: the rows begin there, None: with the first ones ever. before: all are older. archived_at: by the
    database's clock.
    """

    path: Path = Field(exclude=True)
    format: Literal[1] = 1
    symbol: str
    source: str | None
    start: datetime | None
    before: datetime
    archived_at: datetime
    feature_version: str | None
    tables: dict[str, TableFile]


def write_rows(path: Path, pieces: Iterable[Buffer]) -> None:
    """Write a compressed file, onto the disk and not only into the system's memory."""
    with path.open("wb") as file:
        # No name and no time within: the same rows give the same bytes.
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed:
            for piece in pieces:
                packed.write(piece)
        file.flush()
        os.fsync(file.fileno())


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a manifest onto the disk."""
    with path.open("w", encoding="utf-8") as file:
        file.write(manifest.model_dump_json(indent=1))
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def read_rows(path: Path) -> Iterator[tuple[list[str], Iterator[Buffer]]]:
    """The columns of a file of rows, and its text in pieces, the heading included."""
    with gzip.open(path, "rb") as file:
        columns = file.readline().decode().strip().split(",")
        file.seek(0)
        yield columns, iter(partial(file.read, _PIECE), b"")


def sha256(path: Path) -> str:
    """The checksum of a file as it is on the disk."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def file_errors(folder: Path) -> Iterator[None]:
    """Turn what the operating system and gzip raise in the block into an MLTradingError of one line."""
    try:
        yield
    except OSError as error:
        raise MLTradingError(
            f"{error.filename or folder}: {error.strerror or error}; nothing was changed in the database"
        ) from None
    except (EOFError, zlib.error) as error:  # gzip's, beside its OSErrors
        raise MLTradingError(f"{folder}: {error}; nothing was changed in the database") from None


def manifests(paths: Sequence[Path]) -> list[Manifest]:
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


def _manifest(path: Path) -> Manifest:
    try:
        return Manifest.model_validate({**json.loads(path.read_text(encoding="utf-8")), "path": path})
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; an archive has a .json file for each symbol") from None
    except ValidationError as error:
        wrong = error.errors()[0]
        what = f"{'.'.join(map(str, wrong['loc']))} {wrong['input']!r:.40}: {wrong['msg']}"
        raise UsageError(f"{path}: is no archive of this program ({what})") from None
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path}: is no archive of this program ({error})") from None
