"""Numbered SQL migrations: applied once, in order, each in a transaction of its own with its checksum."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, LiteralString, NamedTuple

from include.mltrading.errors import EditedMigrationError, SchemaError
from include.mltrading.store.connection import Connection
from include.mltrading.store.queries import SQL_FOLDER, query

MIGRATIONS_FOLDER = SQL_FOLDER / "migrations"
_FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_CREATES = re.compile(r"^CREATE (TABLE|VIEW) (?:IF NOT EXISTS )?(\w+)", re.MULTILINE)
_MIGRATE = "run `python -m include.mltrading migrate`"


class Migration(NamedTuple):
    """One file of sql/migrations/."""

    version: int
    name: str
    checksum: str
    statements: LiteralString


def available(folder: Path = MIGRATIONS_FOLDER) -> list[Migration]:
    """The migrations that the program brings, by version.

    Raises SchemaError for each file that cannot be read or has a name that is not NNNN_name.sql, one a line,
    or for a number used twice or left out.
    """
    migrations, problems = [], []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE_NAME.fullmatch(path.name)
        if not match:
            problems.append(f"{path}: name it NNNN_what_it_does.sql")
            continue
        try:
            content = path.read_bytes()
            statements = content.decode()
        except (OSError, UnicodeDecodeError):
            problems.append(f"{path}: cannot be read as UTF-8 text; restore it from the repository")
            continue
        checksum = hashlib.sha256(content).hexdigest()
        migrations.append(Migration(int(match[1]), path.stem, checksum, statements))
    if problems:
        raise SchemaError("\n".join(problems))
    for expected, migration in enumerate(migrations, start=1):
        if migration.version != expected:
            raise SchemaError(
                f"{folder / migration.name}.sql: number {expected:04d} is expected here, once; restore the "
                "folder from the repository, or number migrations of your own on from its last one"
            )
    return migrations


def migrate(
    connection: Connection, folder: Path = MIGRATIONS_FOLDER, *, version: int | None = None
) -> list[str]:
    """Apply what is missing and return the names applied; two callers at once take turns.

    version: the last migration to apply, None = all. Raises SchemaError, with nothing applied, when an
    applied file was edited or the database is newer than the program.
    """
    migrations = available(folder)
    with connection.transaction():
        # One number for "the schema of this database"; concurrent callers wait here.
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('mltrading:migrate', 0))")
        connection.execute(query("schema/create_schema_migrations"))
        missing = _missing(connection.execute(query("schema/applied_migrations")), migrations)
        if version is not None:
            missing = [migration for migration in missing if migration.version <= version]
        for migration in missing:
            connection.execute(migration.statements)
            connection.execute(
                query("schema/record_migration"),
                {"version": migration.version, "name": migration.name, "checksum": migration.checksum},
            )
    return [migration.name for migration in missing]


def require_current_schema(connection: Connection, folder: Path = MIGRATIONS_FOLDER) -> None:
    """Raise SchemaError, naming the remedy, unless exactly the program's migrations are applied."""
    row = connection.execute(query("schema/schema_migrations_exists")).fetchone()
    if row is None or not row[0]:
        raise SchemaError(f"the database has no schema yet: {_MIGRATE}")
    missing = _missing(connection.execute(query("schema/applied_migrations")), available(folder))
    if missing:
        raise SchemaError(f"the database schema is old, it lacks {missing[0].name}: {_MIGRATE}")


def require_known(applied: Iterable[tuple[Any, ...]], folder: Path = MIGRATIONS_FOLDER) -> None:
    """Raise SchemaError unless these migrations (version, name, checksum) are the program's own."""
    _missing(applied, available(folder))


def made_by_migrations(kind: Literal["TABLE", "VIEW"], folder: Path = MIGRATIONS_FOLDER) -> list[str]:
    """The names of the tables or views that the migrations make, each once."""
    statements = [
        query("schema/create_schema_migrations"),
        *(migration.statements for migration in available(folder)),
    ]
    # A view is made again to have another column.
    return list(
        dict.fromkeys(name for text in statements for made, name in _CREATES.findall(text) if made == kind)
    )


def _missing(applied: Iterable[tuple[Any, ...]], migrations: list[Migration]) -> list[Migration]:
    by_version = {migration.version: migration for migration in migrations}
    versions = set()
    for version, name, checksum in applied:
        known = by_version.get(version)
        if known is None:
            raise SchemaError(f"the database schema is newer than the program ({name}): update the program")
        if known.checksum != checksum:
            raise EditedMigrationError(
                f"migration {name} was edited after it was applied: restore sql/migrations/{known.name}.sql "
                "and put the change into a new migration"
            )
        versions.add(version)
    return [migration for migration in migrations if migration.version not in versions]
