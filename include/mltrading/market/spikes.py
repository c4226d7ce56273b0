"""Prices that cannot be true: a jump that the next bars take back.

A jump that holds is news, however large: an earnings gap, a crash, a bankruptcy. So is one that lasts for an
hour only, where the next bar opens at the price it led to: it was traded there. Only the bars after a jump
tell, so a newest bar with an extreme one waits for them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from include.mltrading.market.bars import CONFIRMING_BARS, CONTEXT_BARS, UNCONFIRMED, Bar

_SMALLEST = math.log(1.3)  # no smaller jump of a close counts
_TIMES_USUAL = 12  # nor one below so many median moves of the bars around: wild stocks are wild
_EXTREME = math.log(3)  # of a close that waits for confirmation; of a high or low beyond its own bar
_TAKEN_BACK = 0.25  # share of the jump that may be left
_CONTRADICTED = 0.5  # share of the jump, below which the next open denies that it was ever traded


def find_spikes(bars: Sequence[Bar]) -> dict[int, str]:
    """Index -> reason for each bar of a time-ordered series of well-formed bars that cannot be true."""
    if not bars:
        return {}
    spikes: dict[int, str] = {}
    closes = [math.log(bar.close) for bar in bars]
    moves = [abs(later - earlier) for earlier, later in pairwise(closes)]
    # traded: the last close that is believed, if only for an hour.
    before = traded = _level_before_first(closes)
    index = believed = 0  # bars before `believed` are known to be news
    while index < len(bars):
        jump = closes[index] - before
        around = moves[max(0, index - CONTEXT_BARS) : index + CONTEXT_BARS]
        least = max(_SMALLEST, _TIMES_USUAL * median(around)) if around else _EXTREME
        judged = index >= believed and abs(jump) >= least
        back = _taken_back(closes, index, before, jump) if judged else None
        following = len(bars) - index - 1
        if back is not None:
            end = _contradicted(bars, closes, range(index + 1, back + 1), before)
            if end is not None:
                for spike in range(index, end):
                    spikes[spike] = f"a jump {_times(closes[spike] - before)} that the next bars take back"
                index = end
                continue
            believed = back
        elif judged and abs(jump) >= _EXTREME and following < CONFIRMING_BARS:
            # It may be the first of several, so all that follows waits too.
            for spike in range(index, len(bars)):
                spikes[spike] = f"a jump {_times(closes[spike] - before)} {UNCONFIRMED}"
            break
        bar = bars[index]
        highest, lowest = max(before, traded, closes[index]), min(before, traded, closes[index])
        if math.log(bar.high) - highest >= _EXTREME:
            spikes[index] = f"a high {_times(math.log(bar.high) - highest)} that the close takes back"
        elif lowest - math.log(bar.low) >= _EXTREME:
            spikes[index] = f"a low {_times(math.log(bar.low) - lowest)} that the close takes back"
        traded = closes[index]
        if index >= believed:
            before = traded
        index += 1
    return spikes


def _level_before_first(closes: Sequence[float]) -> float:
    """A stand-in for what came before: the bars after the first, where they agree with each other only."""
    following = closes[1 : 1 + CONFIRMING_BARS]
    if len(following) < CONFIRMING_BARS or max(following) - min(following) > _SMALLEST:
        return closes[0]
    level = median(following)
    return level if abs(closes[0] - level) >= _EXTREME else closes[0]


def _taken_back(closes: Sequence[float], start: int, before: float, jump: float) -> int | None:
    """Index of the first bar back at the level before the jump; None where it holds."""
    for index in range(start + 1, min(start + CONFIRMING_BARS, len(closes) - 1) + 1):
        left = (closes[index] - before) / jump
        if abs(left) <= _TAKEN_BACK:
            return index
        if left < 0.5:
            return None  # on its way somewhere else
    return None


def _contradicted(
    bars: Sequence[Bar], closes: Sequence[float], following: range, before: float
) -> int | None:
    """Index of the first of the bars that opens at the level before, as if the last close had not been."""
    for index in following:
        reached = closes[index - 1] - before
        if (math.log(bars[index].open) - before) / reached < _CONTRADICTED:
            return index
    return None


def _times(jump: float) -> str:
    return f"of {math.exp(jump):.3g} times"
