"""processing_history: the audit log of every run, step, symbol and try."""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from include.mltrading.errors import DatabaseError
from include.mltrading.store.connection import Connection
from include.mltrading.store.queries import query
from include.mltrading.store.text import storable

OK = "ok"


@dataclass(frozen=True)
class Attempt:
    """One try of one step of a run. window_end: the instant up to which the run works, UTC."""

    dag_id: str
    run_id: str
    step: str
    try_number: int
    correlation_id: str
    window_end: datetime

    def key(self) -> dict[str, object]:
        """The columns that, with a symbol, identify a row."""
        return {"dag_id": self.dag_id, "run_id": self.run_id, "step": self.step, "try": self.try_number}


class Used(NamedTuple):
    """What a process has used: processor time, and its largest resident memory."""

    cpu_seconds: float
    peak_memory_bytes: int


@dataclass(frozen=True)
class Result:
    """How the latest try of a symbol ended."""

    symbol: str
    status: str
    rows_written: int | None
    error: str | None


def claim(connection: Connection, attempt: Attempt, symbols: Sequence[str]) -> None:
    """Commit a `running` row for each symbol."""
    connection.execute(
        query("ledger/claim_symbols"),
        {
            **attempt.key(),
            "correlation_id": attempt.correlation_id,
            "window_end": attempt.window_end,
            "symbols": list(symbols),
        },
    )


def hold(connection: Connection, attempt: Attempt, symbol: str) -> Callable[[], None]:
    """Hold the symbol's row until the transaction ends, where a pipeline brings it to its `finish`.

    Call what is returned when the pipeline of this has ended: it raises DatabaseError when the symbol was
    never claimed.
    """
    held = connection.execute(query("ledger/hold_symbol"), {**attempt.key(), "symbol": symbol})

    def require() -> None:
        _require_one(held.rowcount, symbol)

    return require


def finish(
    connection: Connection,
    attempt: Attempt,
    symbol: str,
    started_at: datetime,
    rows_written: int,
    used: Used | None = None,
) -> None:
    """Turn the symbol's row to `ok`; call it inside the transaction of the data.

    used: None for what this process has. Raises DatabaseError, so that the data is not committed either, when
    the symbol was never claimed; in a pipeline, where nothing is known yet, `hold` does.
    """
    if used is None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        used = Used(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
    finished = connection.execute(
        query("ledger/finish_symbol"),
        {
            **attempt.key(),
            "symbol": symbol,
            "started_at": started_at,
            "rows_written": rows_written,
            **used._asdict(),
        },
    )
    if finished.pgresult is not None:
        _require_one(finished.rowcount, symbol)


def _require_one(rows: int, symbol: str) -> None:
    if rows != 1:
        raise DatabaseError(f"{symbol}: its row in processing_history is gone; run the task again")


def fail(
    connection: Connection,
    attempt: Attempt,
    symbol: str,
    status: str,
    error: str | None,
    seconds: float,
    cpu_seconds: float,
    peak_memory_bytes: int,
) -> None:
    """Turn a `running` row to another outcome; a committed `ok` stays.

    seconds: how long the symbol's process lived. cpu_seconds, peak_memory_bytes: what it used.
    """
    connection.execute(
        query("ledger/fail_symbol"),
        {
            **attempt.key(),
            "symbol": symbol,
            "status": status,
            "error": storable(error),
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "peak_memory_bytes": peak_memory_bytes,
        },
    )


def last_served(
    connection: Connection, dag_id: str, step: str, symbol: str, before: datetime
) -> datetime | None:
    """The end of the DAG's last window, before an instant, for which the symbol was served; None = none."""
    row = connection.execute(
        query("ledger/last_served_tick"), {"dag_id": dag_id, "step": step, "symbol": symbol, "before": before}
    ).fetchone()
    return None if row is None else row[0]


def latest(
    connection: Connection, dag_id: str, run_id: str, step: str, symbols: Sequence[str]
) -> dict[str, Result]:
    """The latest try of each symbol in a step of a run; symbols never attempted are absent."""
    rows = connection.execute(
        query("ledger/latest_tries"),
        {"dag_id": dag_id, "run_id": run_id, "step": step, "symbols": list(symbols)},
    )
    return {row[0]: Result(*row) for row in rows}
