"""What is wrong with stored data: bars that are missing or were refused, splits that moved history."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import NamedTuple

from include.mltrading.configuration.settings import Settings
from include.mltrading.market.calendar import bars_of, last_sessions, new_york_date, sessions_between
from include.mltrading.market.splits import TAKEN_BACK
from include.mltrading.pipeline.run import Run
from include.mltrading.store.connection import Connection, connect
from include.mltrading.store.queries import query

SESSIONS = 3
SILENT_SESSIONS = 5
_NAMED = 10
# So many symbols that lack the same hour are Yahoo's doing: half of a few, five of some, a tenth of many;
# where Yahoo says that nobody traded them, nearly all of at least five.
_MANY, _MANY_SHARE, _NEARLY_ALL = 5, 0.1, 0.9


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
    quiet_too: bool = False,
) -> list[Missing]:
    """The sessions, of the last so many that opened before `until`, of which final bars are missing.

    quiet_too: also those of hours in which, as the vendor says, nobody traded.
    """
    expected = [
        (start, session.day)
        for session in last_sessions(sessions, until)
        for start, end in bars_of(session)
        if end + finality_delay <= until
    ]
    rows = connection.execute(
        query("bars/missing_bars"),
        {
            "symbols": list(symbols),
            "timestamps": [start for start, _ in expected],
            "days": [day for _, day in expected],
            "quiet_too": quiet_too,
        },
    )
    return [Missing(*row) for row in rows]


def silent_symbols(newest: Mapping[str, datetime | None], until: datetime) -> list[str]:
    """Symbols without a new bar in the last SILENT_SESSIONS sessions that closed, while others have theirs.

    newest: symbol -> start of its newest final bar. Where more than half of those that have bars have no new
    one, it is not the symbols' own silence.
    """
    closed = [session for session in last_sessions(SILENT_SESSIONS + 1, until) if session.close <= until]
    since = closed[-SILENT_SESSIONS].open
    known = {symbol: start for symbol, start in newest.items() if start is not None}
    silent = sorted(symbol for symbol, start in known.items() if start < since)
    return silent if 2 * len(silent) <= len(known) else []


def withheld_hours(
    connection: Connection,
    symbols: Collection[str],
    days: Iterable[date],
    until: datetime,
    finality_delay: timedelta = timedelta(),
) -> dict[date, dict[datetime, list[str]]]:
    """Hours that many of the symbols lack: session -> start of the bar -> those symbols."""
    hours = [
        start
        for day in sorted(set(days))
        for session in sessions_between(day, day)
        for start, end in bars_of(session)
        if end + finality_delay <= until
    ]
    lacking = defaultdict[datetime, list[str]](list)
    quiet = defaultdict[datetime, int](int)
    for symbol, hour, is_quiet in connection.execute(
        query("bars/missing_hours"), {"symbols": list(symbols), "timestamps": hours}
    ):
        lacking[hour].append(symbol)
        quiet[hour] += is_quiet
    many = max(2, min(_MANY, len(symbols) / 2), _MANY_SHARE * len(symbols))
    found = defaultdict[date, dict[datetime, list[str]]](dict)
    for hour, names in lacking.items():
        nearly_all = len(names) >= max(_MANY, _NEARLY_ALL * len(symbols))
        if nearly_all or len(names) - quiet[hour] >= many:
            found[new_york_date(hour)][hour] = names
    return dict(found)


def without(
    missing: Iterable[Missing], withheld: Mapping[date, Mapping[datetime, Sequence[str]]]
) -> list[Missing]:
    """What is missing beside the hours that Yahoo withholds from many."""
    left = []
    for hole in missing:
        hours = withheld.get(hole.day, {}).values()
        hole = hole._replace(expected=hole.expected - sum(hole.symbol in names for names in hours))
        if hole.stored < hole.expected:
            left.append(hole)
    return left


def run_quality(settings: Settings, run: Run, symbols: Sequence[str], finality_delay: timedelta) -> Quality:
    """What a collection run leaves missing, refused and restated."""
    key = {"correlation_id": run.correlation_id, "symbols": list(symbols)}
    with connect(settings) as connection:
        return Quality(
            missing_bars(connection, symbols, run.window_end, finality_delay=finality_delay),
            {symbol: count for symbol, count in connection.execute(query("quarantine/refused_by_run"), key)},
            [AppliedSplit(*row) for row in connection.execute(query("corporate_actions/splits_by_run"), key)],
            undecided_splits(connection, symbols, run.window_end),
        )


def undecided_splits(connection: Connection, symbols: Sequence[str], until: datetime) -> list[UndecidedSplit]:
    """The symbols' splits that have been undecided for so many sessions that people should look."""
    since = last_sessions(SESSIONS, until)[0].day
    rows = connection.execute(
        query("corporate_actions/undecided_splits"), {"symbols": list(symbols), "since": since}
    )
    return [UndecidedSplit(*row) for row in rows]


def listing(items: Sequence[object]) -> str:
    """The first of the items in words, "none" for none."""
    more = len(items) - _NAMED
    text = "; ".join(str(item) for item in items[:_NAMED])
    return (f"{text}; and {more} more" if more > 0 else text) or "none"
