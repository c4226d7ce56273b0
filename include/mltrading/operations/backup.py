"""Backups that are known to be good, and the way back.

A backup is a dump of pg_dump. It is good once it was restored into an empty database and every table there
has the sums of the snapshot that was dumped. A restore takes the tables from the migrations and only their
rows from the file: so one transaction does it all, it needs no right beyond the role's own schema, and a
backup fits whatever the schema is called and whichever PostgreSQL (15 or newer) it came from.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import (
    DatabaseRefusedError,
    MixedSourcesError,
    MLTradingError,
    SchemaError,
    UsageError,
)
from include.mltrading.store import dump_file
from include.mltrading.store.checksums import Sum, checksums, relations, schema_in_use
from include.mltrading.store.connection import Connection, connect, database_errors
from include.mltrading.store.dump_file import Report
from include.mltrading.store.migrations import made_by_migrations, migrate, require_known
from include.mltrading.store.queries import query


@dataclass(frozen=True)
class Backup:
    """A good backup.

    tables: rows by table. verified_in: the database in which it was restored and compared. left_out: what
    else stands in the schema, not made by the program's migrations.
    """

    file: Path
    bytes: int
    tables: dict[str, int]
    seconds: float
    verified_in: str
    left_out: list[str]


@dataclass(frozen=True)
class Restored:
    """What the database holds now. tables: rows by table. migrated: the migrations newer than the backup."""

    tables: dict[str, int]
    migrated: list[str]
    source: str | None
    latest_bar: datetime | None
    seconds: float


def database_name(settings: Settings) -> str:
    """The name of the market database."""
    with connect(settings) as connection:
        return connection.info.dbname


def backup(settings: Settings, target: Path, report: Report, *, force: bool = False) -> Backup:
    """Dump the database, prove the dump good, and only then let it have the name `target`.

    Writers may go on meanwhile. The outcome is recorded in backup_history. force: an existing `target` may be
    replaced. Raises MLTradingError; then `target` is as it was.
    """
    started_at, begun = datetime.now(UTC), time.perf_counter()
    _refuse_existing(target, force)
    with connect(settings) as connection:
        dump_file.require_programs(connection.info.server_version)
        connection.execute(
            query("backup/last_backup")
        )  # before all the work: there is a table to record it in
        scratch = settings.verify_database or f"{connection.info.dbname}_verify"
    record = {"started_at": started_at, "file": str(target.absolute()), "bytes": None, "rows": None}
    try:
        with _scratch(settings, scratch) as empty, _part_of(target, force) as part:
            sums, left_out = _dump(settings, part, report)
            size = part.stat().st_size
            _verify(empty, part, sums, report)
    except (MLTradingError, psycopg.Error) as error:
        with suppress(MLTradingError, psycopg.Error), connect(settings) as connection:
            connection.execute(query("backup/record_backup"), {**record, "error": str(error)})
        raise
    tables = {name: found.rows for name, found in sums.items()}
    with connect(settings) as connection:
        connection.execute(
            query("backup/record_backup"),
            {**record, "bytes": size, "rows": sum(tables.values()), "error": None},
        )
    return Backup(target, size, tables, round(time.perf_counter() - begun, 3), scratch, left_out)


def restore(settings: Settings, file: Path, report: Report, *, force: bool = False) -> Restored:
    """Put the rows of a backup in place of what the database holds, in one transaction, and migrate it.

    force: what the database holds may be lost. Raises MLTradingError; then the database is as it was.
    """
    begun = time.perf_counter()
    dump_file.require_dump_file(file)
    with connect(settings) as connection, connection.transaction():
        _settle(connection)
        schema = schema_in_use(connection)
        held = set(relations(connection, schema))
        source = None
        if "schema_migrations" in held:
            require_known(connection.execute(query("schema/applied_migrations")))
            source = _source(connection) if "data_source" in held else None
        if not force:
            _refuse_rows(connection, schema, held)
        _drop(connection, schema)
        tables = _rebuild(connection, schema, file, report)
        migrated = migrate(connection)
        restored = _source(connection)
        if source is not None and restored is not None and restored != source:
            raise MixedSourcesError(
                f"database {connection.info.dbname!r} holds {source} data and {file} holds {restored} data: "
                "they never take each other's place; restore it into another, empty database"
            )
        names = sql.SQL(", ").join(sql.Identifier(schema, table) for table in tables)
        connection.execute(sql.SQL(query("backup/analyze_tables")).format(tables=names))
        latest = connection.execute(query("check/check_latest_bar")).fetchone()
    seconds = round(time.perf_counter() - begun, 3)
    return Restored(tables, migrated, restored, latest[0] if latest else None, seconds)


def _dump(settings: Settings, part: Path, report: Report) -> tuple[dict[str, Sum], list[str]]:
    """Dump into `part`; the sums of every table in the dumped snapshot, and what is left out."""
    with connect(settings) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        with connection.transaction():
            _settle(connection)
            schema = schema_in_use(connection)
            require_known(connection.execute(query("schema/applied_migrations")))
            present = relations(connection, schema)
            tables = [name for name in made_by_migrations("TABLE") if name in present]
            wanted = [*tables, *(name for name in made_by_migrations("VIEW") if name in present)]
            sums = checksums(connection, schema, tables, report)
            snapshot = connection.execute(query("backup/export_snapshot")).fetchone()
            assert snapshot is not None  # noqa: S101 - a function call has a row
            dump_file.dump(settings.database_url, snapshot[0], schema, wanted, part, report)
    return sums, [name for name in present if name not in wanted]


def _verify(empty: Connection, part: Path, sums: dict[str, Sum], report: Report) -> None:
    """Restore the dump into the empty database, compare every table, and leave the database empty."""
    try:
        with empty.transaction(force_rollback=True):
            _settle(empty)
            schema = schema_in_use(empty)
            _rebuild(empty, schema, part, report, sum(table.rows for table in sums.values()))
            found = checksums(empty, schema, sums, report)
    except psycopg.Error as error:
        described = database_errors(error)
        raise type(described)(
            f"verifying the backup in database {empty.info.dbname!r}: {described}"
        ) from None
    wrong = [name for name in sums if found[name] != sums[name]]
    if wrong:
        raise MLTradingError(
            f"the backup is not good: restored, {', '.join(wrong)} differ from what was dumped; "
            "check the disk and the memory of this machine"
        )


def _rebuild(
    connection: Connection, schema: str, file: Path, report: Report, total: int | None = None
) -> dict[str, int]:
    """The tables of the backup's schema version, with its rows; rows by table."""
    applied = dump_file.applied_migrations(file)
    try:
        require_known(applied)
    except SchemaError as error:
        raise type(error)(f"{file} cannot be restored: {error}") from None
    migrate(connection, version=max(version for version, _, _ in applied))
    made = set(made_by_migrations("TABLE")).intersection(relations(connection, schema))
    loaded = dump_file.load(connection, file, made, report, total)
    for table, column in connection.execute(query("backup/identity_columns"), {"schema": schema}).fetchall():
        if table in made:
            advance = sql.SQL(query("backup/advance_identity")).format(
                table=sql.Identifier(table), column=sql.Identifier(column)
            )
            connection.execute(advance, {"table": table, "column": column})
    return loaded


def _settle(connection: Connection) -> None:
    """Make this transaction one in which rows can be dumped, loaded and compared."""
    schema = schema_in_use(connection)
    connection.execute(query("backup/settle_for_dump"))
    connection.execute(query("schema/use_schema"), {"schema": schema})


def _drop(connection: Connection, schema: str) -> None:
    """Remove what migrations made; what else stands in the schema stays."""
    views, tables = (
        sql.SQL(", ").join(sql.Identifier(schema, name) for name in made_by_migrations(kind))
        for kind in ("VIEW", "TABLE")
    )
    try:
        connection.execute(sql.SQL(query("backup/drop_views")).format(views=views))
        connection.execute(sql.SQL(query("backup/drop_tables")).format(tables=tables))
    except errors.LockNotAvailable:
        raise MLTradingError(
            "others have used the tables for 60 s: pause the DAGs, end what else is connected, and try again"
        ) from None
    except errors.DependentObjectsStillExist as error:
        detail = "; ".join((error.diag.message_detail or "").splitlines())
        raise UsageError(
            f"something not made by the program depends on its tables ({detail}): drop it, restore, and make "
            "it anew"
        ) from None


def _refuse_rows(connection: Connection, schema: str, held: set[str]) -> None:
    for table in made_by_migrations("TABLE"):
        if table in held and table != "schema_migrations":
            row = connection.execute(
                sql.SQL(query("backup/any_row")).format(table=sql.Identifier(schema, table))
            )
            if row.fetchone() == (True,):
                raise UsageError(
                    f"database {connection.info.dbname!r} is not empty, {table} has rows: --force replaces "
                    "all that it holds; or point MLTRADING_DATABASE_URL at another, empty database"
                )


def _source(connection: Connection) -> str | None:
    row = connection.execute(query("vendor/data_source")).fetchone()
    return row[0] if row else None


@contextmanager
def _scratch(settings: Settings, name: str) -> Iterator[Connection]:
    """A connection to the empty database in which backups are verified."""
    url = make_conninfo(settings.database_url or "", dbname=name)
    remedy = (
        f"apply sql/roles.sql, or CREATE DATABASE {name} OWNER the pipeline's role; "
        "MLTRADING_VERIFY_DATABASE names another one (docs/backup.md)"
    )
    try:
        connection = connect(replace(settings, database_url=url))
    except DatabaseRefusedError:
        raise UsageError(
            f"database {name!r}, in which backups are verified, is missing or refuses the user: {remedy}"
        ) from None
    with connection:
        held = relations(connection, schema_in_use(connection))
        if held:
            raise UsageError(
                f"database {name!r}, in which backups are verified, is not empty, it holds {held[0]}: "
                f"{remedy}"
            )
        yield connection


def _refuse_existing(target: Path, force: bool) -> None:
    try:
        exists = target.exists()
        ordinary = not target.is_symlink() and (target.is_file() or not exists)
    except OSError as error:
        raise UsageError(f"{target} cannot be used ({error.strerror}): give another path") from None
    if not ordinary:
        raise UsageError(f"{target} is no ordinary file: give the path of a file, or --directory")
    if exists and not force:
        raise UsageError(f"{target} exists: --force replaces it; or give another name")


@contextmanager
def _part_of(target: Path, force: bool) -> Iterator[Path]:
    """The file TARGET.part, which becomes TARGET when the block ends well, and goes when it does not."""
    part = target.with_name(f"{target.name}.part")
    with locked_part(part) as descriptor:
        try:
            yield part
            _refuse_existing(target, force)
            try:
                os.fsync(descriptor)
                part.replace(target)
                sync_folder(target.parent)
            except OSError as error:
                raise MLTradingError(f"{target} cannot be written: {error.strerror}") from None
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@contextmanager
def locked_part(part: Path) -> Iterator[int]:
    """The descriptor of an unfinished backup: locked while it is open, readable for its owner only.

    Raises UsageError when another process writes it, or it cannot be opened.
    """
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise UsageError(f"{part} cannot be written ({error.strerror}): give a folder that can") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another process may have finished it between the two calls.
            ours = part.exists() and os.path.samestat(os.fstat(descriptor), part.stat())
        except BlockingIOError:
            ours = False
        if not ours:
            raise UsageError(f"another backup is writing {part}: wait for it, or give another name")
        os.fchmod(descriptor, 0o600)
        yield descriptor
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Bring the names in `folder` to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
