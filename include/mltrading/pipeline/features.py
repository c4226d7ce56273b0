"""Compute one symbol's features: read final bars, compute, write, all in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from include.mltrading.configuration.settings import Settings
from include.mltrading.features.compute import compute
from include.mltrading.features.definitions import COLUMNS, FEATURE_VERSION
from include.mltrading.pipeline.run import Run
from include.mltrading.pipeline.steps import FEATURES
from include.mltrading.store import feature_table, ledger, market_data
from include.mltrading.store.arrays import Starts, as_start
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
                state = feature_table.lock_state(connection, symbol)
                starts, values = self._stale_rows(connection, symbol, state)
                if self.dry_run:
                    rows = len(starts)
                else:
                    rows = feature_table.upsert_features(
                        connection, symbol, starts, values, features_until=state.features_until
                    )
                    feature_table.mark_current(connection, symbol)
                    ledger.finish(connection, self.run.attempt(FEATURES), symbol, begun, rows)
        log.info("%s: %d feature rows %s", symbol, rows, "would be written" if self.dry_run else "written")
        return rows

    def _stale_rows(
        self, connection: Connection, symbol: str, state: feature_table.State
    ) -> tuple[Starts, NDArray[np.float64]]:
        """Starts of the stale bars, and their features in an array of shape (n, 36)."""
        full = self.full or state.feature_version != FEATURE_VERSION
        if not full and state.stale_from is None:
            return np.empty(0, dtype="datetime64[us]"), np.empty((0, len(COLUMNS)))
        since = state.recompute_from(full=full)
        starts, bars = feature_table.select_bars(
            connection, symbol, since, archived=state.archived_before is not None
        )
        first = 0 if since is None else int(np.searchsorted(starts, as_start(since)))
        return starts[first:], compute(*bars)[first:]
