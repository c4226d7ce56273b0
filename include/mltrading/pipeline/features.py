"""Compute one symbol's features: read final bars, compute, write, all in one transaction."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from include.mltrading.features.compute import compute
from include.mltrading.features.definitions import COLUMNS, FEATURE_VERSION
from include.mltrading.pipeline.run import Run
from include.mltrading.pipeline.steps import FEATURES
from include.mltrading.settings import Settings
from include.mltrading.store import feature_table, ledger, market_data
from include.mltrading.store.connection import Connection, connect

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureComputation:
    """Which features to compute and under which run.

    full: all rows instead of the stale ones. dry_run: compute and count, write nothing.
    """

    settings: Settings
    run: Run
    full: bool = False
    dry_run: bool = False

    def __call__(self, symbol: str, started: Callable[[], None]) -> int:
        """Compute one symbol's features from its first stale bar on; returns the rows written."""
        begun = datetime.now(UTC)
        with connect(self.settings) as connection:
            started()
            with connection.transaction():
                # Who changes bars waits here, so no revision can slip in between reading and writing.
                market_data.lock_symbol(connection, symbol)
                timestamps, values = self._stale_rows(connection, symbol)
                if self.dry_run:
                    rows = len(timestamps)
                else:
                    rows = feature_table.upsert_features(connection, symbol, timestamps, values)
                    feature_table.mark_current(connection, symbol)
                    ledger.finish(connection, self.run.attempt(FEATURES), symbol, begun, rows)
        log.info("%s: %d feature rows %s", symbol, rows, "would be written" if self.dry_run else "written")
        return rows

    def _stale_rows(self, connection: Connection, symbol: str) -> tuple[list[datetime], NDArray[np.float64]]:
        """Starts of the stale bars, and their features in an array of shape (n, 36)."""
        state = feature_table.lock_state(connection, symbol)
        full = self.full or state.feature_version != FEATURE_VERSION
        if not full and state.stale_from is None:
            return [], np.empty((0, len(COLUMNS)))
        since = None if full else state.stale_from
        timestamps, bars = feature_table.select_bars(connection, symbol, since)
        first = 0 if since is None else bisect_left(timestamps, since)
        return timestamps[first:], compute(*bars)[first:]
