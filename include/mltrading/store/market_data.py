"""Reading and writing bars, refused bars and corporate actions. Writers hold the symbol's lock."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

from include.mltrading.errors import MixedSourcesError
from include.mltrading.market.bars import CONFIRMING_BARS, CONTEXT_BARS, Bar, RefusedBar
from include.mltrading.market.calendar import NEW_YORK
from include.mltrading.market.splits import TAKEN_BACK, Found, Recorded
from include.mltrading.market.yahoo import Split
from include.mltrading.store.connection import Connection
from include.mltrading.store.queries import query

# Longer than anybody looks back for missing bars at every tick.
QUIET_HOURS_KEPT = timedelta(days=60)


class Written(NamedTuple):
    """bars: rows inserted or changed. revised: final bars among them whose earlier values were kept."""

    bars: int
    revised: int


def lock_symbol(connection: Connection, symbol: str) -> None:
    """Take turns with other writers of the symbol until the transaction ends."""
    connection.execute(query("bars/lock_symbol"), {"symbol": symbol})


def claim_source(connection: Connection, source: str) -> None:
    """Make sure that the database holds data of this source only.

    Raises MixedSourcesError when it holds another: simulated and real bars never share a database.
    """
    row = connection.execute(query("vendor/claim_data_source"), {"source": source}).fetchone()
    # A claim that another transaction has just committed is not in this statement's snapshot.
    row = row or connection.execute(query("vendor/claim_data_source"), {"source": source}).fetchone()
    if row is None or row[0] != source:
        held = row[0] if row else "another"
        raise MixedSourcesError(
            f"this database holds {held} data and the vendor serves {source} data: they never share one; "
            "point MLTRADING_DATABASE_URL (in Airflow: the connection mltrading_db) at another database, "
            "or correct MLTRADING_YAHOO_URL"
        )


def last_final_bar(connection: Connection, symbol: str) -> datetime | None:
    """Start of the symbol's newest final bar, None without one."""
    row = connection.execute(query("bars/last_final_bar"), {"symbol": symbol}).fetchone()
    return row[0] if row else None


def final_bars(connection: Connection, symbol: str, start: datetime, end: datetime) -> list[Bar]:
    """The symbol's final bars in [start, end), oldest first, and those around it that the rules look at."""
    rows = connection.execute(
        query("bars/stored_final_bars"),
        {
            "symbol": symbol, "start": start, "end": end,
            "before": 2 * CONTEXT_BARS, "after": CONFIRMING_BARS,
        },
    )  # fmt: skip
    return [Bar(*row) for row in rows]


def newest_before(connection: Connection, symbol: str, instant: datetime) -> list[Bar]:
    """The last of the symbol's final bars before `instant`, oldest first; archived ones among them where
    features look back to them.
    """
    rows = connection.execute(
        query("bars/newest_bars_before"), {"symbol": symbol, "before": instant, "limit": 2 * CONTEXT_BARS}
    ).fetchall()
    return [Bar(*row) for row in reversed(rows)]


def oldest_bar(connection: Connection, symbol: str) -> datetime | None:
    """Start of the symbol's oldest bar, None without one."""
    row = connection.execute(query("bars/oldest_bar"), {"symbol": symbol}).fetchone()
    return row[0] if row else None


def archived_before(connection: Connection, symbol: str) -> datetime | None:
    """Bars of the symbol before this instant were archived; None where none were."""
    row = connection.execute(query("archive/archived_before"), {"symbol": symbol}).fetchone()
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
        query("bars/upsert_bars"),
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
            query("quarantine/upsert_quarantined"),
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


def dividends(connection: Connection, symbol: str) -> dict[date, float]:
    """The recorded dividends: ex-date -> US dollars a share, on the basis of the stored bars."""
    return dict(connection.execute(query("corporate_actions/dividends"), {"symbol": symbol}).fetchall())


def record_dividends(
    connection: Connection,
    symbol: str,
    amounts: Mapping[date, float],
    gone: Sequence[date],
    *,
    correlation_id: str,
) -> None:
    """Record dividends (ex-date -> US dollars a share), and end those that the vendor has withdrawn."""
    key = {"symbol": symbol, "kind": "dividend", "correlation_id": correlation_id}
    with connection.cursor() as cursor:
        cursor.executemany(
            query("corporate_actions/end_corporate_action"), [{**key, "ex_date": day} for day in gone]
        )
        cursor.executemany(
            query("corporate_actions/record_dividend"),
            [{**key, "ex_date": day, "amount": amount} for day, amount in amounts.items()],
        )


def recorded_splits(connection: Connection, symbol: str) -> list[Recorded]:
    """What is on record of the symbol's splits, oldest first."""
    return [
        Recorded(Split(ex_date, ratio), applied, decided)
        for ex_date, ratio, applied, decided in connection.execute(
            query("corporate_actions/recorded_splits"), {"symbol": symbol}
        )
    ]


def undecided_split(connection: Connection, symbol: str) -> date | None:
    """Ex-date of the newest split of which it is not known on which side of it the stored bars stand."""
    row = connection.execute(query("corporate_actions/undecided_split"), {"symbol": symbol}).fetchone()
    return row[0] if row else None


def record_split(connection: Connection, symbol: str, found: Found, *, correlation_id: str) -> int:
    """Put a split on record and bring stored bars and dividends before its ex-date to its basis.

    Returns how many bars were restated; their features become stale in the same statement.
    """
    split = found.split
    key = {"symbol": symbol, "ex_date": split.ex_date, "correlation_id": correlation_id}
    restated = 0
    if found.divide != 1:
        day = found.before or split.ex_date
        before = datetime.combine(day, time(), NEW_YORK).astimezone(UTC)
        reason = TAKEN_BACK if found.ended else found.evidence
        row = connection.execute(
            query("corporate_actions/restate_bars"),
            {**key, "ex_date": day, "before": before, "ratio": found.divide, "reason": reason},
        ).fetchone()
        restated = int(row[0]) if row else 0
    if found.replaces is not None:
        connection.execute(query("corporate_actions/move_split"), {**key, "replaces": found.replaces})
    if found.ended:
        connection.execute(query("corporate_actions/end_corporate_action"), {**key, "kind": "split"})
    else:
        connection.execute(
            query("corporate_actions/record_split"),
            {**key, "ratio": split.ratio, "divide": found.divide, "bars": restated, "decided": found.decided,
             "evidence": found.evidence},
        )  # fmt: skip
    return restated


def retract_bars(
    connection: Connection, symbol: str, timestamps: Sequence[datetime], *, correlation_id: str
) -> int:
    """Take untrue bars out of the table, with their features; they stay in bar_revisions."""
    if not timestamps:
        return 0
    row = connection.execute(
        query("bars/retract_bars"),
        {"symbol": symbol, "timestamps": list(timestamps), "correlation_id": correlation_id},
    ).fetchone()
    return int(row[0]) if row else 0


def all_bars(connection: Connection, symbol: str) -> list[Bar]:
    """All stored bars of the symbol, provisional ones too, oldest first."""
    return [Bar(*row) for row in connection.execute(query("bars/all_bars"), {"symbol": symbol})]


def end_actions(
    connection: Connection, symbol: str, but: Sequence[tuple[date, str, float]], *, correlation_id: str
) -> None:
    """Take the symbol's corporate actions off the record, into their history.

    but: those that stay, (ex-date, "split" or "dividend", ratio or dollars a share). A split for which stored
    bars were restated goes in any case.
    """
    columns = list(zip(*but, strict=True)) or [()] * 3
    names = ("ex_dates", "kinds", "values")
    connection.execute(
        query("corporate_actions/end_actions"),
        {
            "symbol": symbol,
            "correlation_id": correlation_id,
            **{name: list(column) for name, column in zip(names, columns, strict=True)},
        },
    )


def forget_archive(connection: Connection, symbol: str) -> None:
    """The symbol's archived bars are no part of its history any more: nothing looks back to them."""
    connection.execute(query("archive/archive_clear_lookback"), {"symbol": symbol})
    connection.execute(query("archive/forget_archive"), {"symbol": symbol})


def take_back_releases(connection: Connection, symbol: str) -> None:
    """The vendor has a say again in bars that somebody had released from quarantine."""
    connection.execute(query("quarantine/take_back_releases"), {"symbol": symbol})


def released_bars(connection: Connection, symbol: str) -> set[datetime]:
    """Starts of the bars that somebody has released from quarantine: the vendor has no say in them."""
    return {row[0] for row in connection.execute(query("quarantine/released_bars"), {"symbol": symbol})}


def record_quiet_hours(connection: Connection, symbol: str, hours: Sequence[datetime]) -> None:
    """Remember in which hours nobody traded, as the vendor says. hours: starts of bars."""
    if hours:
        connection.execute(
            query("bars/record_quiet_hours"),
            {"symbol": symbol, "hours": list(hours), "since": max(hours) - QUIET_HOURS_KEPT},
        )


def confirm_bars(connection: Connection, symbol: str, timestamps: Sequence[datetime]) -> int:
    """The vendor's bars of these hours are good now: what it sent before leaves the quarantine.

    Returns how many refused bars left it.
    """
    return connection.execute(
        query("quarantine/confirm_bars"), {"symbol": symbol, "timestamps": list(timestamps)}
    ).rowcount
