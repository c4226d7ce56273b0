"""Compute a symbol's features: read final bars, compute them apart, write, all in one transaction."""

from __future__ import annotations

import logging
import math
import mmap
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from include.mltrading.configuration.settings import Settings
from include.mltrading.features.compute import compute
from include.mltrading.features.definitions import COLUMNS, FEATURE_VERSION
from include.mltrading.pipeline.child import EndedBadly, LastingWork, apart
from include.mltrading.pipeline.run import Run
from include.mltrading.pipeline.steps import FEATURES
from include.mltrading.store import feature_table, ledger, market_data
from include.mltrading.store.arrays import as_start
from include.mltrading.store.connection import Connection, connect

log = logging.getLogger(__name__)


@dataclass
class FeatureComputation(LastingWork):
    """Which features to compute and under which run; a connection serves one symbol after the other.

    full: all rows instead of the stale ones. dry_run: compute and count, write nothing.
    """

    settings: Settings
    run: Run
    full: bool = False
    dry_run: bool = False
    _connection: Connection | None = field(default=None, init=False)

    def __call__(self, symbol: str, started: Callable[[], None]) -> int:
        """Compute one symbol's features from its first stale bar on; returns the rows written."""
        begun = datetime.now(UTC)
        if self._connection is None:
            self._connection = connect(self.settings)
        started()
        try:
            rows = self._serve(self._connection, symbol, begun)
        except EndedBadly:
            self._connection.rollback()
            raise
        except BaseException:
            self.close()
            raise
        log.info("%s: %d feature rows %s", symbol, rows, "would be written" if self.dry_run else "written")
        return rows

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _serve(self, connection: Connection, symbol: str, begun: datetime) -> int:
        attempt = self.run.attempt(FEATURES)
        # In a pipeline statements share a round trip: all up to the bars, and all after the features.
        with connection.pipeline():
            connection.execute("BEGIN")
            # Who changes bars waits here, so no revision can slip in between reading and writing.
            market_data.lock_symbol(connection, symbol)
            require_claimed = None if self.dry_run else ledger.hold(connection, attempt, symbol)
            stale = feature_table.lock_stale(connection, symbol, full=self.full)
        if require_claimed is not None:
            require_claimed()
        state, starts, bars = stale()
        since = state.recompute_from(full=self.full or state.feature_version != FEATURE_VERSION)
        first = 0 if since is None else int(np.searchsorted(starts, as_start(since)))
        starts, (values, used) = starts[first:], _compute_apart(bars, first)
        if self.dry_run:
            connection.rollback()
            return len(starts)
        rows = feature_table.upsert_features(
            connection, symbol, starts, values, features_until=state.features_until
        )
        with connection.pipeline():
            feature_table.mark_current(connection, symbol)
            ledger.finish(connection, attempt, symbol, begun, rows, used)
            connection.execute("COMMIT")
        return rows


def _compute_apart(bars: NDArray[np.float64], first: int) -> tuple[NDArray[np.float64], ledger.Used]:
    """The features of the bars from `first` on, in an array of shape (n, features), and what that used."""
    shape = (bars.shape[1] - first, len(COLUMNS))
    if not shape[0]:
        return np.empty(shape), ledger.Used(0.0, 0)
    shared = mmap.mmap(-1, math.prod(shape) * np.dtype(np.float64).itemsize)
    values = np.frombuffer(shared).reshape(shape)

    def fill() -> None:
        values[:] = compute(*bars)[first:]

    return values, apart(fill)
