"""One symbol in full: its bars with what a chart draws, what is wrong with them, and what was last done."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from include.mltrading.configuration.deployments import Deployments
from include.mltrading.market.calendar import bars_of, last_sessions
from include.mltrading.monitor.figures import plain
from include.mltrading.monitor.runs import shown_pipelines
from include.mltrading.store.connection import Connection, read_only
from include.mltrading.store.market_data import oldest_bar
from include.mltrading.store.migrations import require_current_schema
from include.mltrading.store.queries import query

MOST_SESSIONS = 500  # two years, all that the vendor serves
_RUNS = 5
COLUMNS = (
    "timestamp", "open", "high", "low", "close", "volume", "is_final",
    "sma_short", "sma_med", "sma_long", "bb_upper", "bb_lower", "rsi",
    "macd", "macd_signal", "macd_histogram",
)  # fmt: skip


@dataclass(frozen=True)
class Mark:
    """A bar that somebody should look at, and why."""

    timestamp: int
    text: str


@dataclass(frozen=True)
class Try:
    """What was done with the symbol in a run; seconds: None while it runs."""

    dag_id: str
    run_id: str
    tick: datetime
    step: str
    number: int
    status: str
    started_at: datetime
    seconds: float | None
    cpu_seconds: float | None
    peak_memory_bytes: int | None
    rows_written: int | None
    error: str | None


@dataclass(frozen=True)
class SymbolPage:
    """A symbol over its last sessions. Instants of bars are Unix seconds (UTC) of their starts.

    bars: column -> values, oldest first, None where a feature is not defined. missing: due bars from its
    first one on that are not stored as final. quarantined: refused and not released. revised: changed by the
    vendor after they were final.
    """

    symbol: str
    as_of: datetime
    sessions: int
    bars: dict[str, list[Any]]
    missing: list[int]
    quarantined: list[Mark]
    revised: list[Mark]
    tries: list[Try]

    def as_document(self) -> dict[str, Any]:
        """The page as JSON values, other times as ISO texts."""
        document: dict[str, Any] = plain(self)
        return document


def symbol_page(
    connection: Connection, deployments: Deployments, symbol: str, sessions: int, now: datetime
) -> SymbolPage:
    """Look once, read-only. sessions: 1 to MOST_SESSIONS, back from `now` (UTC).

    Raises SchemaError, or psycopg.Error when the database fails.
    """
    with read_only(connection):
        require_current_schema(connection)
        days = last_sessions(sessions, now)
        key = {"symbol": symbol, "since": days[0].open}
        rows = connection.execute(query("monitor/monitor_symbol_bars"), key).fetchall()
        first = oldest_bar(connection, symbol)
        quarantined = connection.execute(query("monitor/monitor_symbol_quarantined"), key).fetchall()
        revised = connection.execute(query("monitor/monitor_symbol_revised"), key).fetchall()
        runs = connection.execute(
            query("monitor/monitor_newest_runs"),
            {"dag_ids": list(shown_pipelines(deployments)), "runs": _RUNS, "since": now, "most": _RUNS},
        ).fetchall()
        tries = connection.execute(
            query("monitor/monitor_symbol_tries"),
            {"symbol": symbol, "dag_ids": [row[0] for row in runs], "run_ids": [row[1] for row in runs]},
        ).fetchall()
    bars = {name: [row[index] for row in rows] for index, name in enumerate(COLUMNS)}
    stored = {start for start, final in zip(bars["timestamp"], bars["is_final"], strict=True) if final}
    until = now - timedelta(minutes=deployments.pipeline.finality_delay_minutes)
    missing = [
        start
        for day in days
        for start, end in bars_of(day)
        if end <= until and start not in stored and (first is None or start >= first)
    ]
    bars["timestamp"] = [_seconds(start) for start in bars["timestamp"]]
    return SymbolPage(
        symbol,
        now,
        sessions,
        bars,
        [_seconds(start) for start in missing],
        [Mark(_seconds(start), reason) for start, reason in quarantined],
        [Mark(_seconds(start), f"{count} x, closed at {close:g} before") for start, count, close in revised],
        [Try(*row) for row in tries],
    )


def _seconds(instant: datetime) -> int:
    return int(instant.timestamp())
