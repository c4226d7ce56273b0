"""What a schema holds, in numbers that two databases can be compared by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from psycopg import sql

from include.mltrading.errors import UsageError
from include.mltrading.store.connection import Connection
from include.mltrading.store.dump_file import Report
from include.mltrading.store.queries import query


class Sum(NamedTuple):
    """A table's number of rows, and a sum over their content that does not depend on their order."""

    rows: int
    checksum: int


def schema_in_use(connection: Connection) -> str:
    """The schema in which the program's tables stand, or would be made.

    Raises UsageError where there is none.
    """
    row = connection.execute(query("schema/schema_in_use")).fetchone()
    if row is None or row[0] is None:
        raise UsageError(
            f"database {connection.info.dbname!r} has no schema in which {connection.info.user} may make "
            "tables: apply sql/roles.sql"
        )
    return str(row[0])


def relations(connection: Connection, schema: str) -> list[str]:
    """The names of the schema's tables and views."""
    rows = connection.execute(query("schema/relations_in_schema"), {"schema": schema})
    return [name for (name,) in rows]


def checksums(connection: Connection, schema: str, tables: Iterable[str], report: Report) -> dict[str, Sum]:
    """The sum of each table; to be called in a transaction that began with `settle_for_dump`."""
    found: dict[str, Sum] = {}
    for table in tables:
        report(f"reading {table}", sum(done.rows for done in found.values()), None)
        row = connection.execute(
            sql.SQL(query("backup/table_checksum")).format(table=sql.Identifier(schema, table))
        ).fetchone()
        assert row is not None  # noqa: S101 - an aggregate always has a row
        found[table] = Sum(int(row[0]), int(row[1]))
    return found
