"""Reading and writing bars, refused bars and corporate actions. Writers hold the symbol's lock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime
from typing import NamedTuple

from include.mltrading.errors import UsageError
from include.mltrading.market.bars import Bar, RefusedBar
from include.mltrading.store.connection import Connection
from include.mltrading.store.queries import query


class Written(NamedTuple):
    """bars: rows inserted or changed. revised: final bars among them whose earlier values were kept."""

    bars: int
    revised: int


def lock_symbol(connection: Connection, symbol: str) -> None:
    """Take turns with other writers of the symbol until the transaction ends."""
    connection.execute(query("lock_symbol"), {"symbol": symbol})


def claim_source(connection: Connection, source: str) -> None:
    """Make sure that the database holds data of this source only.

    Raises UsageError when it holds another: simulated and real bars never share a database.
    """
    row = connection.execute(query("claim_data_source"), {"source": source}).fetchone()
    # A claim that another transaction has just committed is not in this statement's snapshot.
    row = row or connection.execute(query("claim_data_source"), {"source": source}).fetchone()
    if row is None or row[0] != source:
        held = row[0] if row else "another"
        raise UsageError(
            f"this database holds {held} data and the vendor serves {source} data: they never share one; "
            "point MLTRADING_DATABASE_URL (in Airflow: the connection mltrading_db) at another database, "
            "or correct MLTRADING_YAHOO_URL"
        )


def last_final_bar(connection: Connection, symbol: str) -> datetime | None:
    """Start of the symbol's newest final bar, None without one."""
    row = connection.execute(query("last_final_bar"), {"symbol": symbol}).fetchone()
    return row[0] if row else None


def upsert_bars(
    connection: Connection,
    symbol: str,
    bars: Sequence[tuple[Bar, bool]],
    *,
    source: str,
    correlation_id: str,
) -> Written:
    """Write checked bars, each with whether it is final; equal ones are left alone.

    Changed final bars are kept in bar_revisions, and the symbol's features from the first new or changed
    final bar on become stale, in the same statement.
    """
    columns = list(zip(*((*bar, is_final) for bar, is_final in bars), strict=True)) or [()] * 7
    names = ("timestamp", "open", "high", "low", "close", "volume", "is_final")
    row = connection.execute(
        query("upsert_bars"),
        {
            "symbol": symbol,
            "source": source,
            "correlation_id": correlation_id,
            **{name: list(column) for name, column in zip(names, columns, strict=True)},
        },
    ).fetchone()
    return Written(*row) if row else Written(0, 0)


def quarantine(
    connection: Connection, symbol: str, refused: Sequence[RefusedBar], *, correlation_id: str
) -> None:
    """Record refused bars; one that is refused again only gets a new last_seen."""
    with connection.cursor() as cursor:
        cursor.executemany(
            query("upsert_quarantined"),
            [
                {
                    "symbol": symbol,
                    "timestamp": bar.timestamp,
                    "reason": reason,
                    # NaN is no JSON number: a value that is none is kept as text.
                    "payload": json.dumps({name: str(value) for name, value in bar._asdict().items()}),
                    "correlation_id": correlation_id,
                }
                for bar, reason in refused
            ],
        )


def upsert_actions(connection: Connection, symbol: str, actions: Sequence[tuple[date, str, float]]) -> None:
    """Record corporate actions: (ex-date, "split" or "dividend", ratio or dollars a share)."""
    with connection.cursor() as cursor:
        cursor.executemany(
            query("upsert_corporate_action"),
            [
                {"symbol": symbol, "ex_date": ex_date, "kind": kind, "value": value}
                for ex_date, kind, value in actions
            ],
        )
