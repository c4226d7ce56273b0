"""How current each symbol's bars and features are, in market time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import accumulate

from include.mltrading.configuration.deployments import COLLECTION, DagId, Deployments
from include.mltrading.features.definitions import FEATURE_VERSION
from include.mltrading.market.calendar import bars_of, grid, last_sessions, market_time_ago, served_bars
from include.mltrading.monitor.figures import DataFreshness, Freshness, Symbol
from include.mltrading.operations.check import CHECKED_SESSIONS
from include.mltrading.pipeline.quality import silent_symbols
from include.mltrading.store.connection import Connection
from include.mltrading.store.queries import query

COUNT_TO = 100
"""Counting a symbol's bars without features ends here."""


def stale_before(deployments: Deployments, now: datetime) -> datetime:
    """Start of the bar that every symbol must have: the collection's threshold, in market time, is over."""
    return expected_bar(deployments, COLLECTION, now)


def expected_bar(deployments: Deployments, dag_id: DagId, now: datetime) -> datetime:
    """Start of the newest bar that ended so long ago, in market time, that the DAG should be through."""
    threshold = timedelta(hours=deployments.deployments[dag_id].alert_threshold_hours)
    due = market_time_ago(threshold, now) - _delay(deployments)
    return max(start for session in last_sessions(2, due) for start, end in bars_of(session) if end <= due)


def _delay(deployments: Deployments) -> timedelta:
    return timedelta(minutes=deployments.pipeline.finality_delay_minutes)


def data_freshness(
    connection: Connection, deployments: Deployments, symbols: Sequence[str], now: datetime
) -> DataFreshness:
    until = now - _delay(deployments)
    expected = [
        start
        for session in last_sessions(CHECKED_SESSIONS, until)
        for start, end in bars_of(session)
        if end <= until
    ]
    rows = connection.execute(
        query("monitor/monitor_symbols"),
        {
            "symbols": list(symbols),
            "feature_version": FEATURE_VERSION,
            "expected": expected,
            "count_to": COUNT_TO,
        },
    ).fetchall()
    oldest = min((newest for _, newest, _, _ in rows if newest is not None), default=expected[0])
    market = _Market(min(oldest, expected[0]), until, now)
    stale = stale_before(deployments, now)
    silent = silent_symbols({name: newest for name, newest, _, _ in rows}, now)
    states = [_symbol(market, stale, silent, *row) for row in rows]
    totals = {"symbols": len(states), "fresh": 0, "late": 0, "stale": 0, "empty": 0}
    for state in states:
        totals[state.freshness] = totals.get(state.freshness, 0) + 1
    totals["features_behind"] = sum(state.features_behind > 0 for state in states)
    totals["missing"] = sum(state.missing > 0 for state in states)
    threshold = deployments.deployments[COLLECTION].alert_threshold_hours
    return DataFreshness(expected[-1], stale, threshold, CHECKED_SESSIONS, COUNT_TO, totals, states)


class _Market:
    """The exchange's bars from an instant on: which are due by `until`, and how long it was open by `now`."""

    def __init__(self, since: datetime, until: datetime, now: datetime) -> None:
        bars = sorted(grid(since, now).items())
        self._due = [start for start, end in served_bars(since, now) if end <= until]
        self._starts = [start for start, _ in bars]
        # open_since[i]: hours for which the exchange was open from the start of bar i to now.
        hours = [(min(end, now) - start) / timedelta(hours=1) for start, end in reversed(bars)]
        self._open_since = [*list(accumulate(hours))[::-1], 0.0]

    def behind(self, newest: datetime) -> int:
        """How many due bars start after that one."""
        return len(self._due) - bisect_right(self._due, newest)

    def age_hours(self, newest: datetime) -> float:
        """For how long the exchange was open since the end of that bar."""
        return self._open_since[bisect_left(self._starts, newest + timedelta(microseconds=1))]


def _symbol(
    market: _Market, stale: datetime, silent: Sequence[str], name: str, newest: datetime | None,
    features_behind: int, missing: int,
) -> Symbol:  # fmt: skip
    if newest is None:
        return Symbol(name, None, None, None, missing, features_behind, "empty")
    behind = market.behind(newest)
    # A bar is an hour of the market; the time in which it is closed makes nobody late.
    freshness: Freshness = "fresh" if behind == 0 else "late" if newest >= stale else "stale"
    freshness = "silent" if name in silent else freshness
    age = round(market.age_hours(newest), 2)
    return Symbol(name, newest, behind, age, missing, features_behind, freshness)
