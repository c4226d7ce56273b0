"""Which of a reply's bars may enter the table, given what the table holds."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from include.mltrading.errors import MalformedReplyError
from include.mltrading.market.bars import UNCONFIRMED, Bar, RefusedBar
from include.mltrading.market.calendar import new_york_date
from include.mltrading.market.spikes import find_spikes

_SAME = 1e-6  # relative; the vendor's prices are single precision
_FAR = math.log(3)  # no correction of a stored bar is as large
_MOST_MISPLACED = 0.1
# All time zones that are whole or half hours away.
_SHIFTS = [timedelta(minutes=30 * half_hours) for half_hours in range(-28, 29) if half_hours]


@dataclass(frozen=True)
class Judged:
    """good: bars for the table, with whether each is final. refused: the others. untrue: starts of stored
    bars that are refused now and must go.
    """

    good: list[tuple[Bar, bool]]
    refused: list[RefusedBar]
    untrue: list[datetime]


def require_trading_hours(symbol: str, bars: Sequence[Bar], grid: Collection[datetime]) -> None:
    """Raise MalformedReplyError when so many of a reply's rows would stand on the grid under another time
    zone, and do not as they came, that its times are wrong: the bars would be stored under wrong hours.

    grid: starts of the exchange's bars in the window. Rows of the evening after an early close, or of a day
    without a session, say nothing about the zone: the bars beside them are where they belong.
    """
    times = sorted({bar.timestamp for bar in bars})
    if sum(time not in grid for time in times) < 2:
        return
    days = [list(rows) for _, rows in groupby(times, new_york_date)]
    as_came = [sum(time in grid for time in rows) for rows in days]
    misplaced = max(
        sum(
            max(0, sum(time - shift in grid for time in rows) - fitting)
            for rows, fitting in zip(days, as_came, strict=True)
        )
        for shift in _SHIFTS
    )
    if misplaced > 1 and misplaced > _MOST_MISPLACED * len(times):
        raise MalformedReplyError(
            f"{symbol}: {misplaced} of {len(times)} bars lie outside the exchange's sessions, as if their "
            "times were in another time zone; nothing was stored, the next run asks again"
        )


def judge(good: Sequence[tuple[Bar, bool]], stored: Sequence[Bar], released: Collection[datetime]) -> Judged:
    """Compare well-formed bars with the stored ones and with each other.

    good: the reply's, on the table's basis, each with whether it is final. stored: final bars of its span and
    around it. released: starts of bars that people have decided on; the reply has no say in them.
    """
    ours = {bar.timestamp: bar for bar in stored}
    theirs = {bar.timestamp: bar for bar, _ in good if bar.timestamp not in released}
    refused = []
    for start in sorted(ours.keys() & theirs.keys()):
        apart = math.log(theirs[start].close / ours[start].close)
        if abs(apart) >= _FAR:
            refused.append(RefusedBar(theirs.pop(start), f"{math.exp(apart):.3g} times the stored bar"))
    series = sorted((ours | theirs).values())
    untrue = []
    for index, reason in find_spikes(series).items():
        bar = series[index]
        if theirs.get(bar.timestamp) is not bar:
            continue
        mine = ours.get(bar.timestamp)
        if mine is not None and reason.endswith(UNCONFIRMED):
            continue
        refused.append(RefusedBar(theirs.pop(bar.timestamp), reason))
        if mine is not None and _is_same(mine, bar):
            untrue.append(bar.timestamp)
    return Judged([(bar, final) for bar, final in good if bar.timestamp in theirs], refused, untrue)


def _is_same(one: Bar, other: Bar) -> bool:
    return all(math.isclose(a, b, rel_tol=_SAME) for a, b in zip(one[1:5], other[1:5], strict=True))
