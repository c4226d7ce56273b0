"""Which of a reply's bars may enter the table, given what the table holds."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from include.mltrading.errors import MalformedReplyError
from include.mltrading.market.bars import OUTSIDE, UNCONFIRMED, Bar, RefusedBar
from include.mltrading.market.spikes import find_spikes

_SAME = 1e-6  # relative; the vendor's prices are single precision
_FAR = math.log(3)  # no correction of a stored bar is as large
_MOST_OUTSIDE = 0.1


@dataclass(frozen=True)
class Judged:
    """good: bars for the table, with whether each is final. refused: the others. untrue: starts of stored
    bars that are refused now and must go.
    """

    good: list[tuple[Bar, bool]]
    refused: list[RefusedBar]
    untrue: list[datetime]


def require_trading_hours(symbol: str, bars: int, refused: Sequence[RefusedBar]) -> None:
    """Raise MalformedReplyError when so many of a reply's bars lie outside the sessions that its times are
    wrong: the other bars would be stored under wrong hours.
    """
    outside = sum(reason == OUTSIDE for _, reason in refused)
    if outside > 1 and outside > _MOST_OUTSIDE * bars:
        raise MalformedReplyError(
            f"{symbol}: {outside} of {bars} bars lie outside the exchange's sessions, as if their times were "
            "in another time zone; nothing was stored, the next run asks again"
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
