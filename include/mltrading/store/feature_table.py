"""Reading the bars that features need, and writing the features. Writers hold the symbol's lock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from include.mltrading.features.definitions import COLUMNS, FEATURE_VERSION, LOOKBACK_BARS
from include.mltrading.store.arrays import accept_arrays
from include.mltrading.store.connection import Connection
from include.mltrading.store.queries import query


class State(NamedTuple):
    """From which bar on the symbol's features are stale (None: up to date), and their version."""

    stale_from: datetime | None
    feature_version: str | None


def lock_state(connection: Connection, symbol: str) -> State:
    """The symbol's state, held until the transaction ends; all None for a symbol without bars."""
    row = connection.execute(query("lock_symbol_state"), {"symbol": symbol}).fetchone()
    return State(*row) if row else State(None, None)


def select_bars(
    connection: Connection, symbol: str, stale_from: datetime | None
) -> tuple[list[datetime], NDArray[np.float64]]:
    """Final bars from LOOKBACK_BARS before `stale_from` (None: all of them), in time order.

    Returns their starts and an array of shape (5, n): open, high, low, close, volume.
    """
    with connection.cursor(binary=True) as cursor:
        rows = cursor.execute(
            query("select_bars"),
            {"symbol": symbol, "stale_from": stale_from, "lookback": LOOKBACK_BARS},
        ).fetchall()
    timestamps = [row[0] for row in rows]
    values = np.array([row[1:] for row in rows], dtype=np.float64).reshape(len(rows), 5)
    return timestamps, np.ascontiguousarray(values.T)


def upsert_features(
    connection: Connection, symbol: str, timestamps: Sequence[datetime], features: NDArray[np.float64]
) -> int:
    """Write feature rows, an array of shape (n, 36) with NaN for "not defined"; returns the rows changed."""
    accept_arrays(connection)
    columns = np.ascontiguousarray(features.T)
    return connection.execute(
        query("upsert_features"),
        {
            "symbol": symbol,
            "timestamp": list(timestamps),
            "feature_version": FEATURE_VERSION,
            **dict(zip(COLUMNS, columns, strict=True)),
        },
    ).rowcount


def mark_current(connection: Connection, symbol: str) -> None:
    """The symbol's features are up to date and of the program's version."""
    connection.execute(query("features_written"), {"symbol": symbol, "feature_version": FEATURE_VERSION})


def unserved_bars(connection: Connection, symbols: Sequence[str]) -> dict[str, int]:
    """Per symbol, how many final bars lack a current feature row, or feature rows lack a final bar."""
    rows = connection.execute(
        query("unserved_bars"), {"symbols": list(symbols), "feature_version": FEATURE_VERSION}
    )
    return {symbol: count for symbol, count in rows}


def select_features(connection: Connection, symbol: str) -> tuple[list[datetime], NDArray[np.float64]]:
    """All feature rows of the current version: bar starts and an array of shape (n, 36), NaN for NULL."""
    with connection.cursor(binary=True) as cursor:
        rows = cursor.execute(
            query("select_features"), {"symbol": symbol, "feature_version": FEATURE_VERSION}
        ).fetchall()
    values = np.array([row[1:] for row in rows], dtype=np.float64).reshape(len(rows), len(COLUMNS))
    return [row[0] for row in rows], values


def random_symbols(connection: Connection, count: int) -> list[str]:
    """Up to `count` symbols whose features are up to date."""
    return [row[0] for row in connection.execute(query("random_symbols"), {"count": count})]
