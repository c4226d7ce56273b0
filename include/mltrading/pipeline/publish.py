"""Counting what a run achieved: publish_* decides whether it is good enough, verify_* whether it is whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import VerdictError
from include.mltrading.pipeline.run import Run
from include.mltrading.pipeline.steps import FEATURES
from include.mltrading.store import feature_table, ledger
from include.mltrading.store.connection import connect

_NAMED = 20


@dataclass(frozen=True)
class Tally:
    """Symbols served and failed (symbol -> reason) in one step of a run, and the rows written."""

    step: str
    good: list[str]
    failed: dict[str, str]
    rows_written: int

    def __str__(self) -> str:
        total = len(self.good) + len(self.failed)
        text = f"{self.step}: {len(self.good)} of {total} symbols served, {self.rows_written} rows written"
        return f"{text}; failed: {_listed(self.failed)}" if self.failed else text


def tally(settings: Settings, run: Run, step: str, symbols: Sequence[str]) -> Tally:
    """Count the latest try of each symbol; one that was never recorded has failed."""
    with connect(settings) as connection:
        results = ledger.latest(connection, run.dag_id, run.run_id, step, symbols)
    good, failed, rows = [], {}, 0
    for symbol in symbols:
        result = results.get(symbol)
        if result is None:
            failed[symbol] = "never started"
        elif result.status != ledger.OK:
            failed[symbol] = f"{result.status}: {result.error or 'its process ended without a word'}"
        else:
            good.append(symbol)
            rows += result.rows_written or 0
    return Tally(step, good, failed, rows)


def publish(settings: Settings, run: Run, step: str, symbols: Sequence[str], minimum_share: float) -> Tally:
    """The tally, when enough symbols were served. Raises VerdictError otherwise."""
    counted = tally(settings, run, step, symbols)
    if len(counted.good) < minimum_share * len(symbols):
        raise VerdictError(f"too few symbols, {minimum_share:.0%} are needed: {counted}")
    return counted


def verify(settings: Settings, run: Run, steps: Sequence[str], symbols: Sequence[str]) -> list[Tally]:
    """The tallies, when no symbol failed and, after features, every final bar has its feature row.

    Raises VerdictError naming the symbols and reasons otherwise.
    """
    tallies = [tally(settings, run, step, symbols) for step in steps]
    problems = [str(counted) for counted in tallies if counted.failed]
    if FEATURES in steps:
        with connect(settings) as connection:
            unserved = feature_table.unserved_bars(connection, symbols)
        if unserved:
            counts = {symbol: f"{bars} bars" for symbol, bars in unserved.items()}
            problems.append(f"final bars and feature rows do not match: {_listed(counts)}")
    if problems:
        raise VerdictError("; ".join(problems))
    return tallies


def _listed(reasons: dict[str, str]) -> str:
    text = "; ".join(f"{symbol} ({reason})" for symbol, reason in list(reasons.items())[:_NAMED])
    more = len(reasons) - _NAMED
    return f"{text}; and {more} more" if more > 0 else text
