"""Rows on their way out of the database and back, staged in tables of the connection's own.

One transaction does it all. Callers hold the symbol's lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, time
from typing import NamedTuple

from psycopg import sql
from psycopg.abc import Buffer

from include.mltrading.features.definitions import LOOKBACK_BARS
from include.mltrading.market.calendar import NEW_YORK
from include.mltrading.market.yahoo import Split
from include.mltrading.store.connection import Connection
from include.mltrading.store.queries import query

BARS, FEATURES, LOOKBACK = "market_data", "feature_engineered_data", "lookback_bars"
TABLES = (BARS, FEATURES, "bar_revisions", "quarantined_bars", LOOKBACK)


class Stored(NamedTuple):
    """What the database holds of a symbol; instants are starts of bars, None where there is none."""

    symbol: str
    oldest: datetime | None
    newest_final: datetime | None
    stale_from: datetime | None
    feature_version: str | None
    archived_before: datetime | None


class Digest(NamedTuple):
    """Number of rows, and a checksum over all their values (None without any)."""

    rows: int
    checksum: str | None


def _staged(table: str) -> str:
    return f"leaving_{table}"


def _returned(table: str) -> str:
    return f"returning_{table}"


def _composed(name: str, **identifiers: str) -> sql.Composed:
    return sql.SQL(query(name)).format(**{key: sql.Identifier(value) for key, value in identifiers.items()})


def prepare(connection: Connection) -> None:
    """Make the tables in which rows are staged; they go with the connection."""
    for table in TABLES:
        for staged in (_staged(table), _returned(table)):
            connection.execute(_composed("archive/archive_stage", staged=staged, table=table))


def stored(connection: Connection, symbols: list[str] | None) -> list[Stored]:
    """What is stored of the symbols; None: of all that were ever collected."""
    return [
        Stored(*row) for row in connection.execute(query("archive/archive_candidates"), {"symbols": symbols})
    ]


def take_out(connection: Connection, symbol: str, before: datetime) -> None:
    """Move the symbol's rows of before that instant into the staging tables.

    What later features look back to goes with them, and the last bars of all take its place.
    """
    for table in TABLES:
        connection.execute(
            _composed("archive/archive_take", table=table, staged=_staged(table)),
            {"symbol": symbol, "before": before},
        )
    connection.execute(
        _composed("archive/archive_keep_lookback", bars=_staged(BARS), lookback=_staged(LOOKBACK)),
        {"lookback": LOOKBACK_BARS},
    )
    _mark(connection, symbol, before, None, None)


def copy_out(connection: Connection, table: str) -> Iterator[Buffer]:
    """The rows of one table that were taken out, as CSV with a heading, in pieces."""
    with (
        connection.cursor() as cursor,
        cursor.copy(_composed("archive/archive_copy_out", staged=_staged(table))) as rows,
    ):
        yield from rows


def copy_in(connection: Connection, table: str, columns: list[str], pieces: Iterable[Buffer]) -> None:
    """Stage rows of one table, as `copy_out` gave them, for their way back. columns: those of the heading."""
    statement = sql.SQL(query("archive/archive_copy_in")).format(
        staged=sql.Identifier(_returned(table)), columns=_columns(columns)
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for piece in pieces:
            copy.write(piece)


def _columns(names: list[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def digest_out(connection: Connection, table: str) -> Digest:
    """Of the rows that were taken out."""
    return _digest(connection, _staged(table))


def digest_in(connection: Connection, table: str) -> Digest:
    """Of the rows that were read back."""
    return _digest(connection, _returned(table))


def _digest(connection: Connection, staged: str) -> Digest:
    row = connection.execute(_composed("archive/archive_digest", staged=staged)).fetchone()
    return Digest(*row) if row else Digest(0, None)


def bars_between(connection: Connection, symbol: str, start: datetime | None, before: datetime) -> int:
    """How many bars of the symbol are stored from `start` (None: the first one) to `before`."""
    row = connection.execute(
        query("archive/archive_count"), {"symbol": symbol, "start": start, "before": before}
    ).fetchone()
    return int(row[0]) if row else 0


def rebase(connection: Connection, symbol: str, archived_at: datetime) -> int:
    """Bring bars on their way back to today's split basis; returns how many splits came after the archive."""
    rows = connection.execute(
        query("archive/archive_later_splits"), {"symbol": symbol, "archived_at": archived_at}
    ).fetchall()
    for split in (Split(*row) for row in rows):
        before = datetime.combine(split.ex_date, time(), NEW_YORK).astimezone(UTC)
        for table in (BARS, LOOKBACK):
            connection.execute(
                _composed("archive/archive_restate", staged=_returned(table)),
                {"ratio": split.ratio, "before": before},
            )
    return len(rows)


def strangers(connection: Connection, symbol: str) -> int:
    """How many bars that later features look back to differ from those on their way back, or lack there."""
    row = connection.execute(
        _composed("archive/archive_strangers", bars=_returned(BARS), lookback=_returned(LOOKBACK)),
        {"symbol": symbol},
    ).fetchone()
    return int(row[0]) if row else 0


def put_back(
    connection: Connection,
    symbol: str,
    columns: dict[str, list[str]],
    archived_before: datetime | None,
    feature_version: str | None,
) -> None:
    """Move staged rows back into their tables.

    columns: table -> its columns. archived_before: where the symbol's bars begin then, None: nowhere.
    feature_version: of the features among the rows; None: they are left out, and are stale.
    """
    connection.execute(query("archive/archive_clear_lookback"), {"symbol": symbol})
    for table, names in columns.items():
        if table == FEATURES and feature_version is None:
            continue
        connection.execute(
            sql.SQL(query("archive/archive_put_back")).format(
                table=sql.Identifier(table),
                staged=sql.Identifier(_returned(table)),
                columns=_columns(names),
            )
        )
    row = connection.execute(_composed("archive/archive_first_bar", staged=_returned(BARS))).fetchone()
    first = row[0] if row else None
    _mark(connection, symbol, archived_before, feature_version, first if feature_version is None else None)


def _mark(
    connection: Connection,
    symbol: str,
    archived_before: datetime | None,
    feature_version: str | None,
    stale_from: datetime | None,
) -> None:
    connection.execute(
        query("archive/archive_mark"),
        {
            "symbol": symbol,
            "archived_before": archived_before,
            "feature_version": feature_version,
            "stale_from": stale_from,
        },
    )
