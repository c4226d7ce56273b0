"""What is wrong with stored data: bars that are missing or were refused, splits that moved history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import NamedTuple

from include.mltrading.market.calendar import bars_of, last_sessions
from include.mltrading.market.splits import TAKEN_BACK
from include.mltrading.pipeline.run import Run
from include.mltrading.settings import Settings
from include.mltrading.store.connection import Connection, connect
from include.mltrading.store.queries import query

SESSIONS = 3
_NAMED = 10


class Missing(NamedTuple):
    """A session of which a symbol has fewer final bars than the exchange had by then."""

    symbol: str
    day: date
    stored: int
    expected: int

    def __str__(self) -> str:
        return f"{self.symbol} {self.day} {self.stored} of {self.expected}"


class AppliedSplit(NamedTuple):
    """A split for which stored bars were restated: prices divided by `ratio`. reason: as in restatements."""

    symbol: str
    ex_date: date
    ratio: float
    bars: int
    reason: str

    def __str__(self) -> str:
        if self.reason == TAKEN_BACK:
            return f"{self.symbol} split of {self.ex_date} {TAKEN_BACK}, {self.bars} bars restated"
        return f"{self.symbol} {self.ratio:g} for 1 on {self.ex_date}, {self.bars} bars restated"


class UndecidedSplit(NamedTuple):
    """An announced split of which prices do not tell whether the bars before it stand on its basis."""

    symbol: str
    ex_date: date
    ratio: float

    def __str__(self) -> str:
        return f"{self.symbol} {self.ratio:g} for 1 on {self.ex_date}"


@dataclass(frozen=True)
class Quality:
    """What a run found. refused: symbol -> bars that this run was the first to refuse. undecided: splits that
    are so for as many sessions as bars are looked for.
    """

    missing: list[Missing]
    refused: dict[str, int]
    splits: list[AppliedSplit]
    undecided: list[UndecidedSplit]

    def __str__(self) -> str:
        refused = [f"{symbol} {count}" for symbol, count in self.refused.items()]
        return (
            f"missing bars of the last {SESSIONS} sessions: {listing(self.missing)}\n"
            f"refused bars, now in quarantine: {listing(refused)}\n"
            f"splits: {listing(self.splits)}\n"
            f"splits that cannot be told yet: {listing(self.undecided)}"
        )


def missing_bars(
    connection: Connection,
    symbols: Sequence[str],
    until: datetime,
    *,
    sessions: int = SESSIONS,
    finality_delay: timedelta = timedelta(),
) -> list[Missing]:
    """The sessions, of the last so many that opened before `until`, of which final bars are missing."""
    expected = [
        (start, session.day)
        for session in last_sessions(sessions, until)
        for start, end in bars_of(session)
        if end + finality_delay <= until
    ]
    rows = connection.execute(
        query("missing_bars"),
        {
            "symbols": list(symbols),
            "timestamps": [start for start, _ in expected],
            "days": [day for _, day in expected],
        },
    )
    return [Missing(*row) for row in rows]


def run_quality(settings: Settings, run: Run, symbols: Sequence[str], finality_delay: timedelta) -> Quality:
    """What a collection run leaves missing, refused and restated."""
    key = {"correlation_id": run.correlation_id, "symbols": list(symbols)}
    with connect(settings) as connection:
        return Quality(
            missing_bars(connection, symbols, run.window_end, finality_delay=finality_delay),
            {symbol: count for symbol, count in connection.execute(query("refused_by_run"), key)},
            [AppliedSplit(*row) for row in connection.execute(query("splits_by_run"), key)],
            undecided_splits(connection, symbols, run.window_end),
        )


def undecided_splits(connection: Connection, symbols: Sequence[str], until: datetime) -> list[UndecidedSplit]:
    """The symbols' splits that have been undecided for so many sessions that people should look."""
    since = last_sessions(SESSIONS, until)[0].day
    rows = connection.execute(query("undecided_splits"), {"symbols": list(symbols), "since": since})
    return [UndecidedSplit(*row) for row in rows]


def listing(items: Sequence[object]) -> str:
    """The first of the items in words, "none" for none."""
    more = len(items) - _NAMED
    text = "; ".join(str(item) for item in items[:_NAMED])
    return (f"{text}; and {more} more" if more > 0 else text) or "none"
