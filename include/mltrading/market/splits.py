"""On which split basis a vendor's reply and the stored bars stand, and how both come to the same one.

The vendor restates history before the open of the ex-date, days later, or never, and does not always
announce it. So the prices decide: the bars that reply and table share, and the jump at the ex-date.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from fractions import Fraction
from statistics import median

from include.mltrading.errors import OtherHistoryError
from include.mltrading.market.bars import Bar
from include.mltrading.market.calendar import new_york_date, sessions_between
from include.mltrading.market.yahoo import Split

EVENT, RATIO = "event", "ratio"

_SAME = math.log(1.02)  # bars of one hour that differ by less are on the same basis
_EXACT = math.log(1.005)  # a split moves every bar by the same ratio
_SMALLEST_SEEN = math.log(1.2)  # a smaller split cannot be told from a night's move
_VENDOR_ERROR = math.log(49)  # unannounced: a factor of 100 is a wrong unit, not a split
_CONVINCING = 10  # bars that show an odd ratio, such as a spin-off's
_ENOUGH = 3  # bars that show a usual one
_SAME_SPLIT_DAYS = 10  # so far may the announced date be from the one that the prices showed


@dataclass(frozen=True)
class Found:
    """A split that the data has shown. evidence: EVENT or RATIO. replaces: its earlier, guessed ex-date."""

    split: Split
    evidence: str
    replaces: date | None = None


@dataclass(frozen=True)
class Adjustment:
    """What brings reply and table to today's basis.

    reply: splits by which the reply's earlier bars must be divided. stored: the same for the table's.
    found: the splits that are certain now, for the record.
    """

    reply: list[Split] = field(default_factory=list)
    stored: list[Split] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)


def rebased(bar: Bar, splits: Sequence[Split]) -> Bar:
    """The bar on the basis after the splits that came later than it."""
    day = new_york_date(bar.timestamp)
    ratio = math.prod(split.ratio for split in splits if day < split.ex_date)
    if ratio == 1:
        return bar
    prices = (bar.open / ratio, bar.high / ratio, bar.low / ratio, bar.close / ratio)
    return Bar(bar.timestamp, *prices, round(bar.volume * ratio) if math.isfinite(bar.volume) else bar.volume)


def reconcile(
    symbol: str,
    reply: Sequence[Bar],
    stored: Mapping[datetime, Bar],
    events: Sequence[Split],
    recorded: Sequence[Split],
) -> Adjustment:
    """Find out what brings reply and table to one basis.

    reply: well-formed final bars, oldest first. stored: final bars of the reply's span and some before.
    events: what the reply announces. recorded: splits that the table is known to stand on already.
    Raises OtherHistoryError when the two disagree in a way that no split explains.
    """
    found = _announced(events, recorded)
    replaced = {item.replaces for item in found}
    known = {split.ex_date: split for split in recorded if split.ex_date not in replaced}
    done = set(known) | {item.split.ex_date for item in found if item.replaces is not None}
    known.update({item.split.ex_date: item.split for item in found})
    adjustment = Adjustment()
    undecided = set()
    for split in sorted(known.values(), key=lambda split: split.ex_date, reverse=True):
        if not _place(split, split.ex_date in done, reply, stored, adjustment):
            undecided.add(split.ex_date)
    adjustment.found.extend(item for item in found if item.split.ex_date not in undecided)
    _place_unannounced(symbol, reply, stored, adjustment)
    return adjustment


def _announced(events: Sequence[Split], recorded: Sequence[Split]) -> list[Found]:
    dates = {split.ex_date for split in recorded}
    found = []
    for event in events:
        guesses = [
            split.ex_date
            for split in recorded
            if event.ex_date not in dates
            and abs(math.log(split.ratio / event.ratio)) < _SAME
            and abs(split.ex_date - event.ex_date) <= timedelta(days=_SAME_SPLIT_DAYS)
        ]
        found.append(Found(event, EVENT, guesses[0] if guesses else None))
    return found


def _place(
    split: Split, is_done: bool, reply: Sequence[Bar], stored: Mapping[datetime, Bar], adjustment: Adjustment
) -> bool:
    """Decide whether reply and table stand on the basis after `split`; False where nothing can be told."""
    day, size = split.ex_date, math.log(split.ratio)
    earlier = [bar for bar in reply if new_york_date(bar.timestamp) < day]
    ratios = [
        ratio for bar, ratio in _overlap(reply, stored, adjustment) if new_york_date(bar.timestamp) < day
    ]
    if ratios:
        shift = median(ratios[-7:])
        if abs(shift - size) < min(_SAME, abs(size) / 3):  # the table has been restated, this reply was not
            adjustment.reply.append(split)
            return True
        if abs(shift + size) < min(_SAME, abs(size) / 3):  # the other way round
            adjustment.stored.append(split)
            return True
    if is_done and (ratios or not earlier):
        return True
    # Both on the same basis, or nothing to compare: the night before the ex-date tells which.
    after = next((bar for bar in reply if new_york_date(bar.timestamp) >= day), None)
    if after is None and is_done and earlier:
        after = min((bar for bar in stored.values() if bar > earlier[-1]), default=None)
    if after is None:
        return False
    if earlier:
        unrestated = _jumps(earlier[-1].close, after.open, size)
        if unrestated:
            adjustment.reply.append(split)
            if ratios:
                adjustment.stored.append(split)
        if ratios:
            return True
    before = [bar for start, bar in sorted(stored.items()) if new_york_date(start) < day]
    if before and not is_done:
        last = rebased(before[-1], adjustment.stored)
        if _jumps(last.close, after.open, size):
            adjustment.stored.append(split)
    return True


def _jumps(before: float, after: float, size: float) -> bool:
    """Whether a price falls by about the split's size rather than hardly at all."""
    if abs(size) < _SMALLEST_SEEN:
        return False
    move = math.log(after / before)
    return abs(move + size) < abs(move)


def _place_unannounced(
    symbol: str, reply: Sequence[Bar], stored: Mapping[datetime, Bar], adjustment: Adjustment
) -> None:
    """A ratio between reply and table that no known split explains is a split, or the reply is wrong."""
    overlap = _overlap(reply, stored, adjustment)
    if not overlap:
        return
    shift = median(ratio for _, ratio in overlap[:7])
    if abs(shift) >= _SAME:
        shifted = 0
        while shifted < len(overlap) and abs(overlap[shifted][1] - shift) < _EXACT:
            shifted += 1
        rest = [ratio for _, ratio in overlap[shifted:]]
        is_step = shifted > 0 and (not rest or abs(median(rest)) < _SAME)
        usual = abs(shift + math.log(_usual_ratio(-shift))) < _EXACT / 2
        convincing = (usual and shifted >= min(_ENOUGH, len(overlap))) or shifted >= _CONVINCING
        if is_step and convincing and abs(shift) < _VENDOR_ERROR:
            day = (
                new_york_date(overlap[shifted][0].timestamp)
                if rest
                else _next_session(new_york_date(overlap[-1][0].timestamp))
            )
            split = Split(day, _usual_ratio(-shift) if usual else math.exp(-shift))
            adjustment.stored.append(split)
            # Several splits since the last stored bar show as one step; the record keeps what was announced.
            if day not in {item.split.ex_date for item in adjustment.found}:
                adjustment.found.append(Found(split, RATIO))
            return
    apart = [ratio for _, ratio in overlap if abs(ratio) >= _SAME]
    if len(apart) > len(overlap) / 2 and (len(overlap) >= _ENOUGH or abs(shift) >= _VENDOR_ERROR):
        raise OtherHistoryError(
            symbol,
            f"{len(apart)} of {len(overlap)} bars differ from the stored ones by more than 2%, typically "
            f"{math.exp(median(apart)):.3g} times, and no split explains it",
        )


def _overlap(
    reply: Sequence[Bar], stored: Mapping[datetime, Bar], adjustment: Adjustment
) -> list[tuple[Bar, float]]:
    """The bars that reply and table share, each with the logarithm of reply over table as adjusted so far."""
    pairs = []
    for bar in reply:
        if bar.timestamp in stored:
            ours = rebased(stored[bar.timestamp], adjustment.stored)
            theirs = rebased(bar, adjustment.reply)
            pairs.append((bar, median(math.log(a / b) for a, b in zip(theirs[1:5], ours[1:5], strict=True))))
    return pairs


def _usual_ratio(size: float) -> float:
    """The ratio of small whole numbers nearest to exp(size): 4, 3/2, 1/10."""
    ratio = math.exp(min(max(size, -5.0), 5.0))
    if ratio < 1:
        return float(1 / Fraction(1 / ratio).limit_denominator(4))
    return float(Fraction(ratio).limit_denominator(4))


def _next_session(day: date) -> date:
    return sessions_between(day + timedelta(days=1), day + timedelta(days=10))[0].day
