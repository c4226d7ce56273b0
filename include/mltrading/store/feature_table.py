"""Reading the bars that features need, and writing the features. Writers hold the symbol's lock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, LiteralString, NamedTuple

import numpy as np
import psycopg
from numpy.typing import NDArray

from include.mltrading.features.definitions import COLUMNS, FEATURE_VERSION, LOOKBACK_BARS
from include.mltrading.store.arrays import Starts, accept_arrays, as_instants, copy_rows
from include.mltrading.store.connection import Connection
from include.mltrading.store.queries import query

Rows = psycopg.Cursor[tuple[Any, ...]]
_NO_STARTS: Starts = np.empty(0, dtype="datetime64[us]")


class State(NamedTuple):
    """From which bar on the symbol's features are stale (None: up to date), and their version.

    features_until: the bar of the newest feature row, None without one. archived_before: bars before it were
    archived (None: none were).
    """

    stale_from: datetime | None = None
    feature_version: str | None = None
    features_until: datetime | None = None
    archived_before: datetime | None = None

    def recompute_from(self, *, full: bool) -> datetime | None:
        """The first instant whose features are computed (None: the first bar): never of an archived bar.

        As in select_bars.sql.
        """
        if full or self.stale_from is None or self.archived_before is None:
            return self.archived_before if full else self.stale_from
        return max(self.stale_from, self.archived_before)


class StoredFeatures(NamedTuple):
    """Feature rows in time order. starts: shape (n,). values: shape (n, features), NaN for NULL.

    current: whether the row is of the program's feature version, shape (n,).
    """

    starts: Starts
    values: NDArray[np.float64]
    current: NDArray[np.bool_]


def lock_state(connection: Connection, symbol: str) -> State:
    """The symbol's state, held until the transaction ends; all None for a symbol without bars."""
    return _state(_lock_state(connection, symbol))


def lock_stale(
    connection: Connection, symbol: str, *, full: bool
) -> Callable[[], tuple[State, Starts, NDArray[np.float64]]]:
    """`lock_state` and `select_bars` for a pipeline; call what is returned when that has ended."""
    state, bars = _lock_state(connection, symbol), _select_bars(connection, symbol, full)
    return lambda: (_state(state), *_bars(bars))


def select_bars(connection: Connection, symbol: str, *, full: bool) -> tuple[Starts, NDArray[np.float64]]:
    """The bars that the stale features are computed from, in time order: the last LOOKBACK_BARS before, too.

    full: those of all features. Returns their starts, shape (n,), and an array of shape (5, n): open, high,
    low, close, volume.
    """
    return _bars(_select_bars(connection, symbol, full))


def upsert_features(
    connection: Connection,
    symbol: str,
    starts: Starts,
    features: NDArray[np.float64],
    *,
    features_until: datetime | None,
) -> int:
    """Write feature rows, shape (n, features) with NaN for "not defined"; returns the rows added or changed.

    features_until: as in the symbol's State. Rows that are stored already and would not change are left
    alone. Where none is stored yet they are copied, several times as fast as an upsert.
    """
    if not len(starts):
        return 0
    if features_until is None or features_until < as_instants(starts[:1])[0]:
        with connection.cursor() as cursor, cursor.copy(query("features/copy_features")) as rows:
            for piece in copy_rows(symbol, starts, features, FEATURE_VERSION):
                rows.write(piece)
        return len(starts)
    stored = select_features(connection, symbol, since=as_instants(starts[:1])[0])
    _, ours, theirs = np.intersect1d(starts, stored.starts, assume_unique=True, return_indices=True)
    same = (features[ours] == stored.values[theirs]) | (
        np.isnan(features[ours]) & np.isnan(stored.values[theirs])
    )
    changed = np.ones(len(starts), dtype=bool)
    changed[ours] = ~(same.all(axis=1) & stored.current[theirs])
    if changed.any():
        columns = np.ascontiguousarray(features[changed].T)
        connection.execute(
            query("features/upsert_features"),
            {
                "symbol": symbol,
                "timestamp": as_instants(starts[changed]),
                "feature_version": FEATURE_VERSION,
                **dict(zip(COLUMNS, columns, strict=True)),
            },
        )
    return int(changed.sum())


def mark_current(connection: Connection, symbol: str) -> None:
    """The symbol's features are up to date and of the program's version."""
    connection.execute(
        query("features/features_written"), {"symbol": symbol, "feature_version": FEATURE_VERSION}
    )


def unserved_bars(connection: Connection, symbols: Sequence[str]) -> dict[str, int]:
    """Per symbol, how many final bars lack a current feature row, or feature rows lack a final bar."""
    rows = connection.execute(
        query("features/unserved_bars"), {"symbols": list(symbols), "feature_version": FEATURE_VERSION}
    )
    return {symbol: count for symbol, count in rows}


def select_features(connection: Connection, symbol: str, *, since: datetime | None = None) -> StoredFeatures:
    """The symbol's feature rows from the bar `since` on (None: all of them)."""
    row = _arrays(
        connection,
        query("features/select_features"),
        {"symbol": symbol, "since": since, "feature_version": FEATURE_VERSION},
    ).fetchone()
    if row is None or row[0] is None:
        return StoredFeatures(_NO_STARTS, np.empty((0, len(COLUMNS))), np.empty(0, dtype=bool))
    starts, current, values = row
    return StoredFeatures(starts, values, current == 1)


def random_symbols(connection: Connection, count: int) -> list[str]:
    """Up to `count` symbols whose features are up to date."""
    return [row[0] for row in connection.execute(query("features/random_symbols"), {"count": count})]


def _lock_state(connection: Connection, symbol: str) -> Rows:
    return connection.execute(query("features/lock_symbol_state"), {"symbol": symbol})


def _state(rows: Rows) -> State:
    row = rows.fetchone()
    return State(*row) if row else State()


def _select_bars(connection: Connection, symbol: str, full: bool) -> Rows:
    return _arrays(
        connection,
        query("features/select_bars"),
        {"symbol": symbol, "full": full, "feature_version": FEATURE_VERSION, "lookback": LOOKBACK_BARS},
    )


def _bars(rows: Rows) -> tuple[Starts, NDArray[np.float64]]:
    row = rows.fetchone()
    if row is None or row[0] is None:
        return _NO_STARTS, np.empty((5, 0))
    starts, values = row
    return starts, np.ascontiguousarray(values.T)


def _arrays(connection: Connection, statement: LiteralString, values: dict[str, Any]) -> Rows:
    """A query whose only row holds arrays, NULL for empty ones."""
    accept_arrays(connection)
    return connection.cursor(binary=True).execute(statement, values)
