"""Dump files: what pg_dump writes and pg_restore reads, and how their rows come back into tables."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from psycopg import errors, pq, sql

from include.mltrading.errors import MLTradingError, UsageError
from include.mltrading.store.connection import Connection
from include.mltrading.store.queries import query

# Told what is being done, how much of it is done, and of how much (None = not known).
Report = Callable[[str, int, int | None], None]

# How pg_restore's text begins and ends the rows of a table.
_COPY = re.compile(rb"COPY (?:.+\.)?\"?(\w+)\"? \((.*)\) FROM stdin;\n")
_END = b"\\.\n"
_CHUNK_BYTES = 1 << 18
_POLL_SECONDS = 0.2
_SAID_CHARACTERS = 500


class DumpFileError(MLTradingError):
    """A dump could not be written or read."""


def require_dump_file(path: Path) -> None:
    """Raise UsageError unless `path` is a file in pg_dump's custom format."""
    try:
        with path.open("rb") as file:
            magic = file.read(5)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror}): give a file that `backup` made"
        ) from None
    if magic != b"PGDMP":
        raise UsageError(f"{path} is no backup: give a file that `backup` (pg_dump's custom format) made")


def require_programs(server_version: int) -> None:
    """Raise UsageError unless pg_dump and pg_restore are there and not older than the server.

    server_version: as libpq tells it, such as 150004.
    """
    needed = server_version // 10_000
    for name in ("pg_dump", "pg_restore"):
        told = subprocess.run(  # noqa: S603 (our own command line, no shell)
            [_program(name), "--version"], capture_output=True, text=True, check=False
        ).stdout
        found = re.search(r"\) (\d+)", told)
        if found is None or int(found[1]) < needed:
            raise UsageError(
                f"{name} is of PostgreSQL {found[1] if found else '?'} and the server of {needed}: "
                f"install its client programs (Debian: postgresql-client-{needed}) and put them first on PATH"
            )


def dump(
    url: str | None, snapshot: str, schema: str, relations: Iterable[str], output: Path, report: Report
) -> None:
    """Write `relations` of `schema` as they stand in an exported snapshot into the file `output`.

    Raises DumpFileError with what pg_dump said.
    """
    quoted = ('"{}"."{}"'.format(schema.replace('"', '""'), name) for name in relations)
    command = [
        # Without us nobody needs its file.
        *("setpriv", "--pdeathsig", "TERM", _program("pg_dump")),
        # By name: to its standard output it only appends, and what it corrects at the end stands there twice.
        *("--format=custom", f"--file={output.absolute()}", "--encoding=UTF8", "--no-password"),
        # A quarter of the default level's processor time, for a file a tenth larger: prices compress badly.
        "--compress=1",
        *(f"--snapshot={snapshot}", "--lock-wait-timeout=60s"),
        *(f"--table={name}" for name in quoted),
    ]
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(  # noqa: S603 (our own command line, no shell)
            command, stdin=subprocess.DEVNULL, stderr=said, env=_environment(url)
        ) as child,
    ):
        try:
            while child.poll() is None:
                report(f"dumping, {output.stat().st_size / 1e6:.1f} MB", 0, None)
                try:
                    child.wait(_POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            child.kill()
        if child.returncode != 0:
            raise DumpFileError(f"pg_dump failed: {_last_words(said, child.returncode)}")


def applied_migrations(path: Path) -> list[tuple[int, str, str]]:
    """Version, name and checksum of each migration of the database that was dumped.

    Raises UsageError where the file tells none, DumpFileError where it cannot be read.
    """
    rows = []
    with _text_of(path, "--table=schema_migrations") as lines:
        for line in lines:
            if header := _COPY.fullmatch(line):
                columns = _columns(header)
                for row in lines:
                    if row == _END:
                        break
                    values = dict(zip(columns, row.decode().rstrip("\n").split("\t"), strict=True))
                    rows.append((int(values["version"]), values["name"], values["checksum"]))
    if not rows:
        raise UsageError(f"{path} is a dump of another database: it has no row of schema_migrations")
    return rows


def load(
    connection: Connection, path: Path, tables: Set[str], report: Report, total: int | None = None
) -> dict[str, int]:
    """Put the file's rows into `tables` of the current schema and return the number of rows by table.

    What the tables held is gone. To be called in a transaction. total: all rows, for the report. Raises
    DumpFileError when the file cannot be read, or is not of exactly these tables.
    """
    loaded: dict[str, int] = {}
    with _text_of(path) as lines:
        for line in lines:
            if header := _COPY.fullmatch(line):
                table = header[1].decode()
                if table not in tables:
                    raise DumpFileError(f"{path} is no backup of this program: it holds {table}")
                loaded[table] = _load_table(
                    connection, table, _columns(header), lines, report, sum(loaded.values()), total
                )
    if lacking := sorted(tables - loaded.keys()):
        raise DumpFileError(f"{path} is no whole backup: it lacks {', '.join(lacking)}")
    return loaded


def _load_table(
    connection: Connection,
    table: str,
    columns: Sequence[str],
    lines: Iterator[bytes],
    report: Report,
    before: int,
    total: int | None,
) -> int:
    """Load the rows up to the end of the table; how many. Where the end is missing pg_restore has failed."""
    name = sql.Identifier(table)
    rows, chunk, size = 0, [], 0
    try:
        connection.execute(sql.SQL(query("backup/empty_table")).format(table=name))
        copy_in = sql.SQL(query("backup/load_table")).format(
            table=name, columns=sql.SQL(", ").join(map(sql.Identifier, columns))
        )
        report(f"loading {table}", before, total)
        with connection.cursor().copy(copy_in) as copy:
            for line in lines:
                if line == _END or not line.endswith(b"\n"):
                    break
                rows, size = rows + 1, size + len(line)
                chunk.append(line)
                if size >= _CHUNK_BYTES:
                    copy.write(b"".join(chunk))
                    chunk, size = [], 0
                    report(f"loading {table}", before + rows, total)
            copy.write(b"".join(chunk))
    except (errors.UndefinedTable, errors.UndefinedColumn) as error:
        raise DumpFileError(
            f"{table} is not as the migrations make it ({error.diag.message_primary}): somebody changed it "
            "by hand; put that into a migration, or undo it"
        ) from None
    return rows


def _columns(header: re.Match[bytes]) -> list[str]:
    return [column.strip(' "') for column in header[2].decode().split(",")]


@contextmanager
def _text_of(path: Path, *options: str) -> Iterator[Iterator[bytes]]:
    """The lines of pg_restore's text of the file's rows, to be read to their end."""
    command = [_program("pg_restore"), "--data-only", "--file=-", *options, str(path.absolute())]
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(  # noqa: S603 (our own command line, no shell)
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said
        ) as child,
    ):
        assert child.stdout is not None  # noqa: S101 - a pipe was asked for
        try:
            yield iter(child.stdout)
            child.wait()
        finally:
            child.kill()
        if child.returncode != 0:
            words = _last_words(said, child.returncode)
            remedy = (
                "install the client programs of the newer PostgreSQL that wrote it"
                if "unsupported version" in words
                else "it is damaged or cut off; take another backup"
            )
            raise DumpFileError(f"pg_restore cannot read {path}: {words}; {remedy}")


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise UsageError(
            f"{name} is not on PATH: install PostgreSQL's client programs (Debian: postgresql-client); "
            "on a bare machine `make shell` has them"
        )
    return path


def _environment(url: str | None) -> dict[str, str]:
    """The environment in which libpq finds the database of `url`; a command line would show the password."""
    given = {
        option.envvar.decode(): option.val.decode()
        for option in pq.Conninfo.parse((url or "").encode())
        if option.envvar is not None and option.val is not None
    }
    return {**os.environ, **given}


def _last_words(said: IO[bytes], code: int) -> str:
    """A program's errors in one line."""
    said.seek(0)
    lines = [line.partition(": ")[2] or line for line in said.read().decode(errors="replace").splitlines()]
    text = "; ".join(line.removeprefix("error: ") for line in lines if line)[:_SAID_CHARACTERS]
    return text or (f"exit code {code}" if code > 0 else f"ended by signal {-code}")
