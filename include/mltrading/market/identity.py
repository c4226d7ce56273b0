"""Whether a reply is about the company whose bars are stored: a ticker may be given to another one.

What tells it costs a request, the hours of some stored bars once more, and is asked for only where the reply
gives reason to doubt: the vendor's history begins after stored bars, or too few hours are shared to compare.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median

from include.mltrading.errors import OtherHistoryError
from include.mltrading.market.bars import Bar, defect
from include.mltrading.market.runs import distance
from include.mltrading.market.yahoo import Split

# The vendor's first day of trading may be off by some days; bars from before it count from here on.
FIRST_TRADE_TOLERANCE = timedelta(days=7)

_ENOUGH = 3  # with so many shared hours the levels are judged with the splits
_EQUAL = math.log(1.005)  # a bar that was stored and comes again
_SAME = math.log(1.02)  # bars of one company on one split basis
_LARGE = math.log(1.2)  # less is no other company where only one or two bars tell
_ALIKE = 1e-3  # on another split basis, a company's bars are still all at the same ratio


def too_few_agree(reply: Sequence[Bar], stored: Sequence[Bar]) -> bool:
    """Whether the hours that reply and table share are too few to compare levels, and none is equal.

    reply, stored: final bars. One equal bar is enough: usually a window begins with the newest stored one.
    """
    ratios = _ratios(reply, stored)
    return (
        bool(reply and stored) and len(ratios) < _ENOUGH and not any(abs(ratio) < _EQUAL for ratio in ratios)
    )


def require_same_company(
    symbol: str,
    stored: Sequence[Bar],
    served: Sequence[Bar],
    first_trade: datetime | None,
    events: Sequence[Split],
) -> None:
    """Raise OtherHistoryError when what the vendor serves of the hours of stored bars is of another company.

    stored: bars that are in doubt, oldest first, at least one. served: the vendor's bars of the same span,
    empty where it has none. first_trade: since when the vendor says that the symbol trades. events: the
    splits that it announces.
    """
    ratios = _ratios([bar for bar in served if defect(bar) is None], stored)
    begins_later = first_trade is not None and stored[0].timestamp < first_trade - FIRST_TRADE_TOLERANCE
    if not ratios:
        # Hours that the vendor lacks for a while are no other company, unless it cannot say since when.
        if begins_later or (first_trade is None and len(stored) >= _ENOUGH):
            since = f" and says that it trades since {first_trade:%Y-%m-%d}" if first_trade else ""
            raise _other(symbol, f"Yahoo serves none of the bars stored {_span(stored)}{since}")
        return
    level = median(ratios)
    steps = [abs(later - earlier) < _ALIKE for earlier, later in pairwise(ratios)]
    if abs(level) < _SAME or sum(steps) > len(steps) / 2:
        return
    if len(ratios) < _ENOUGH and (events or abs(level) < _LARGE):
        return
    raise _other(
        symbol,
        f"Yahoo's bars {_span(stored)} are typically {math.exp(level):.3g} times the stored ones, and no "
        "split explains it",
    )


def _other(symbol: str, what: str) -> OtherHistoryError:
    return OtherHistoryError(symbol, f"{what}: the ticker seems to have been given to another company")


def _span(bars: Sequence[Bar]) -> str:
    return f"from {bars[0].timestamp:%Y-%m-%d} to {bars[-1].timestamp:%Y-%m-%d}"


def _ratios(reply: Sequence[Bar], stored: Sequence[Bar]) -> list[float]:
    """The logarithm of reply over table for each shared hour, in time order."""
    ours = {bar.timestamp: bar for bar in stored}
    return [distance(bar, ours[bar.timestamp]) for bar in sorted(reply) if bar.timestamp in ours]
