"""Bars that were refused: looking at them, and letting one in that is true after all."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import MLTradingError, UsageError
from include.mltrading.market.bars import Bar, defect
from include.mltrading.market.calendar import grid
from include.mltrading.pipeline.run import Run
from include.mltrading.store import market_data
from include.mltrading.store.connection import connect
from include.mltrading.store.migrations import require_current_schema
from include.mltrading.store.queries import query


def listed(
    settings: Settings, symbols: Sequence[str] | None, timestamp: datetime | None, include_released: bool
) -> list[dict[str, Any]]:
    """The refused bars, newest first, as one dictionary each."""
    with connect(settings) as connection:
        require_current_schema(connection)
        cursor = connection.execute(
            query("quarantine/list_quarantined"),
            {
                "symbols": None if symbols is None else list(symbols),
                "timestamp": timestamp,
                "all": include_released,
            },
        )
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor]


def release(settings: Settings, symbol: str, timestamp: datetime, identifier: str) -> Bar:
    """Write a refused bar into the table, where the vendor has no say in it any more; returns the bar.

    identifier: the start of its id, empty where the hour has only one. Its features, and those after it,
    become stale. Raises UsageError when there is no such bar or more than one, MLTradingError when the table
    cannot take it, saying why.
    """
    run = Run.from_command_line(None)
    name = f"{symbol} {timestamp:%Y-%m-%dT%H:%M}Z"
    with connect(settings) as connection:
        require_current_schema(connection)
        with connection.transaction():
            market_data.lock_symbol(connection, symbol)
            key = {"symbol": symbol, "timestamp": timestamp}
            found = connection.execute(
                query("quarantine/select_quarantined"), {**key, "id": identifier}
            ).fetchall()
            hashes = {row[0] for row in found}
            if not found:
                raise UsageError(f"{name}: no such bar in quarantine; `quarantine list` shows what there is")
            if len(hashes) > 1:
                ids = ", ".join(sorted(value[:8] for value in hashes))
                raise UsageError(f"{name}: there are {len(hashes)}, choose one with --id ({ids})")
            payload_hash, payload, reason, released_at, outdated = found[0]
            if released_at is not None:
                raise UsageError(f"{name}: was released already")
            bar = Bar(timestamp, *(float(payload[field]) for field in Bar._fields[1:]))
            problem = _problem(bar, outdated)
            if problem:
                raise MLTradingError(f"{name}, refused because of {reason!r}, cannot be released: {problem}")
            source = connection.execute(query("vendor/data_source")).fetchone()
            if source is None:
                raise MLTradingError(f"{name}: the database has no data yet; collect some first")
            market_data.upsert_bars(
                connection,
                symbol,
                [(bar._replace(volume=int(bar.volume)), True)],
                source=source[0],
                correlation_id=run.correlation_id,
            )
            connection.execute(query("quarantine/mark_released"), {**key, "payload_hash": payload_hash})
    return bar


def _problem(bar: Bar, outdated: bool) -> str | None:
    """Why the table cannot take the bar; None where it can."""
    reason = defect(bar)
    if reason:
        return reason
    end = grid(bar.timestamp, bar.timestamp + timedelta(seconds=1)).get(bar.timestamp)
    if end is None:
        return "the exchange has no bar that starts then"
    if end > datetime.now(UTC):
        return "the bar is not over yet"
    if outdated:
        return "a split has been applied since, so its prices are on another basis than the table's"
    return None
