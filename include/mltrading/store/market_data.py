"""Reading and writing bars, refused bars and corporate actions. Writers hold the symbol's lock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, NamedTuple

from include.mltrading.errors import MixedSourcesError
from include.mltrading.market.bars import CONFIRMING_BARS, CONTEXT_BARS, Bar, RefusedBar
from include.mltrading.market.calendar import NEW_YORK
from include.mltrading.market.yahoo import Split
from include.mltrading.store.connection import Connection
from include.mltrading.store.queries import query

if TYPE_CHECKING:
    from include.mltrading.market.splits import Found


class Written(NamedTuple):
    """bars: rows inserted or changed. revised: final bars among them whose earlier values were kept."""

    bars: int
    revised: int


def lock_symbol(connection: Connection, symbol: str) -> None:
    """Take turns with other writers of the symbol until the transaction ends."""
    connection.execute(query("lock_symbol"), {"symbol": symbol})


def claim_source(connection: Connection, source: str) -> None:
    """Make sure that the database holds data of this source only.

    Raises MixedSourcesError when it holds another: simulated and real bars never share a database.
    """
    row = connection.execute(query("claim_data_source"), {"source": source}).fetchone()
    # A claim that another transaction has just committed is not in this statement's snapshot.
    row = row or connection.execute(query("claim_data_source"), {"source": source}).fetchone()
    if row is None or row[0] != source:
        held = row[0] if row else "another"
        raise MixedSourcesError(
            f"this database holds {held} data and the vendor serves {source} data: they never share one; "
            "point MLTRADING_DATABASE_URL (in Airflow: the connection mltrading_db) at another database, "
            "or correct MLTRADING_YAHOO_URL"
        )


def last_final_bar(connection: Connection, symbol: str) -> datetime | None:
    """Start of the symbol's newest final bar, None without one."""
    row = connection.execute(query("last_final_bar"), {"symbol": symbol}).fetchone()
    return row[0] if row else None


def final_bars(connection: Connection, symbol: str, start: datetime, end: datetime) -> list[Bar]:
    """The symbol's final bars in [start, end), oldest first, and those around it that the rules look at."""
    rows = connection.execute(
        query("stored_final_bars"),
        {
            "symbol": symbol, "start": start, "end": end,
            "before": 2 * CONTEXT_BARS, "after": CONFIRMING_BARS,
        },
    )  # fmt: skip
    return [Bar(*row) for row in rows]


def oldest_bar(connection: Connection, symbol: str) -> datetime | None:
    """Start of the symbol's oldest bar, None without one."""
    row = connection.execute(query("oldest_bar"), {"symbol": symbol}).fetchone()
    return row[0] if row else None


def archived_before(connection: Connection, symbol: str) -> datetime | None:
    """Bars of the symbol before this instant were archived; None where none were."""
    row = connection.execute(query("archived_before"), {"symbol": symbol}).fetchone()
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


def recorded_splits(connection: Connection, symbol: str) -> list[Split]:
    """The splits on whose basis the symbol's stored bars stand, oldest first."""
    return [Split(*row) for row in connection.execute(query("recorded_splits"), {"symbol": symbol})]


def restate(connection: Connection, symbol: str, split: Split) -> int:
    """Bring all bars before the split's ex-date to the basis after it; returns how many there were.

    Their features become stale in the same statement.
    """
    before = datetime.combine(split.ex_date, time(), NEW_YORK).astimezone(UTC)
    row = connection.execute(
        query("restate_bars"), {"symbol": symbol, "before": before, "ratio": split.ratio}
    ).fetchone()
    return int(row[0]) if row else 0


def record_split(
    connection: Connection, symbol: str, found: Found, bars: int, *, correlation_id: str
) -> None:
    """Record that the stored bars stand on the basis after the split. bars: how many were restated for it."""
    if found.replaces is not None:
        connection.execute(
            query("move_split"),
            {"symbol": symbol, "ex_date": found.split.ex_date, "replaces": found.replaces},
        )
    connection.execute(
        query("record_split"),
        {
            "symbol": symbol, "ex_date": found.split.ex_date, "ratio": found.split.ratio, "bars": bars,
            "evidence": found.evidence, "correlation_id": correlation_id,
        },
    )  # fmt: skip


def retract_bars(
    connection: Connection, symbol: str, timestamps: Sequence[datetime], *, correlation_id: str
) -> int:
    """Take untrue bars out of the table, with their features; they stay in bar_revisions."""
    row = connection.execute(
        query("retract_bars"),
        {"symbol": symbol, "timestamps": list(timestamps), "correlation_id": correlation_id},
    ).fetchone()
    return int(row[0]) if row else 0


def released_bars(connection: Connection, symbol: str) -> set[datetime]:
    """Starts of the bars that somebody has released from quarantine: the vendor has no say in them."""
    return {row[0] for row in connection.execute(query("released_bars"), {"symbol": symbol})}


def confirm_bars(connection: Connection, symbol: str, timestamps: Sequence[datetime]) -> int:
    """The vendor's bars of these hours are good now: what it sent before leaves the quarantine.

    Returns how many refused bars left it.
    """
    return connection.execute(
        query("confirm_bars"), {"symbol": symbol, "timestamps": list(timestamps)}
    ).rowcount
