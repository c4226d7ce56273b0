"""Runs of bars on one basis, and the levels at their ends: what `basis` explains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import pairwise
from statistics import median, median_low

from include.mltrading.market.bars import Bar
from include.mltrading.market.calendar import new_york_date

PLAIN = math.log(1.4)  # a smaller ratio is not looked for on other days than its own: it may be news
_LEVEL_BARS = 3  # bars on either side of a boundary whose level counts
_SMALLEST_MOVE, _USUAL_MOVE, _WILDEST_MOVE = 0.005, 0.02, 0.1  # of a night; usual where too few are seen


@dataclass(frozen=True)
class Run:
    """Successive bars of one session that stand on one basis.

    reply, table: logarithms of the level at its start and end, None without bars. apart: logarithm of reply
    over table in the bars that both hold. shared: their number.
    """

    start: datetime
    day: date
    reply: tuple[float, float] | None
    table: tuple[float, float] | None
    apart: float | None
    shared: int


def runs_of(reply: Sequence[Bar], stored: Mapping[datetime, Bar], sizes: Sequence[float]) -> list[Run]:
    """The runs of reply and stored bars, oldest first: a session each, or less where a price steps by a size.

    sizes: logarithms of the ratios of splits.
    """
    theirs = {bar.timestamp: bar for bar in reply}
    groups: list[list[datetime]] = []
    last: Bar | None = None
    apart: float | None = None
    for start in sorted({*theirs, *stored}):
        bar = theirs.get(start)
        steps = []
        if bar is not None:
            steps.append(math.log(bar.open / last.close) if last is not None else 0.0)
            if start in stored:
                steps.append(distance(bar, stored[start]) - (0.0 if apart is None else apart))
                apart = distance(bar, stored[start])
            last = bar
        if (
            not groups
            or new_york_date(groups[-1][-1]) != new_york_date(start)
            or any(abs(abs(step) - size) < 0.05 * size for step in steps for size in sizes)
        ):
            groups.append([])
        groups[-1].append(start)
    runs = []
    for group in groups:
        shared = [start for start in group if start in theirs and start in stored]
        runs.append(
            Run(
                group[0],
                new_york_date(group[0]),
                _levels([theirs[start] for start in group if start in theirs]),
                _levels([stored[start] for start in group if start in stored]),
                median(distance(theirs[start], stored[start]) for start in shared) if shared else None,
                len(shared),
            )
        )
    return runs


def distance(one: Bar, other: Bar) -> float:
    """Logarithm of the ratio between two bars of one hour."""
    return median(math.log(a / b) for a, b in zip(one[1:5], other[1:5], strict=True))


def _levels(bars: Sequence[Bar]) -> tuple[float, float] | None:
    if not bars:
        return None
    first, last = (
        median(math.log(price) for bar in some for price in (bar.open, bar.close))
        for some in (bars[:_LEVEL_BARS], bars[-_LEVEL_BARS:])
    )
    return first, last


def usual_move(runs: Sequence[Run]) -> float:
    """How far prices usually move from one session to the next."""
    moves = []
    for earlier, later in pairwise(runs):
        for one, other in ((earlier.reply, later.reply), (earlier.table, later.table)):
            if earlier.day != later.day and one and other:
                moves.append(abs(other[0] - one[1]))
                break
    if len(moves) <= _LEVEL_BARS:
        return _USUAL_MOVE
    return min(max(median_low(moves), _SMALLEST_MOVE), _WILDEST_MOVE)
