"""Whether the vendor's bars are of the company whose bars are stored."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import pytest

from include.mltrading.errors import OtherHistoryError
from include.mltrading.market.bars import Bar
from include.mltrading.market.identity import require_same_company, too_few_agree
from include.mltrading.market.yahoo import Split

FIRST = datetime(2026, 1, 5, 14, 30, tzinfo=UTC)


def walk(price: float, seed: int, count: int = 40) -> list[Bar]:
    """Hours of a stock whose price wanders from `price` on."""
    chance, bars = random.Random(seed), []  # noqa: S311 - no secret
    for hour in range(count):
        close = price * math.exp(chance.gauss(0, 0.004))
        low, high = min(price, close), max(price, close)
        bars.append(Bar(FIRST + timedelta(hours=hour), price, high, low, close, 1000))
        price = close
    return bars


def divided(bars: Sequence[Bar], ratio: float) -> list[Bar]:
    return [Bar(bar.timestamp, *(price / ratio for price in bar[1:5]), bar.volume) for bar in bars]


OURS = walk(48, 1)
LONG_AGO, LATER = FIRST - timedelta(days=3000), FIRST + timedelta(days=120)
NAN = [bar._replace(close=math.nan) for bar in OURS]
SPLIT = [Split(date(2026, 1, 6), 4.0)]


@pytest.mark.parametrize(
    ("stored", "served", "first_trade", "events"),
    [
        (OURS, OURS, LONG_AGO, []),
        (OURS, OURS, LATER, []),  # what it says of the first day is wrong
        (OURS, divided(OURS, 4), LONG_AGO, []),
        (OURS, OURS[:20] + divided(OURS[20:], 0.1), None, []),
        (OURS, [], LONG_AGO, []),  # it lacks those hours now
        (OURS, NAN, LONG_AGO, []),
        (OURS, [], FIRST + timedelta(days=6), []),
        (OURS[:1], [], None, []),
        (OURS[:1], divided(OURS[:1], 1.1), None, []),  # a correction
        (OURS[:1], divided(OURS[:1], 4), None, SPLIT),
    ],
)
def test_the_same_company_is_known_by_its_bars(
    stored: list[Bar], served: list[Bar], first_trade: datetime | None, events: list[Split]
) -> None:
    require_same_company("AAPL", stored, served, first_trade, events)


@pytest.mark.parametrize(
    ("stored", "served", "first_trade", "events"),
    [
        (OURS, walk(310, 2), LONG_AGO, []),
        (OURS, walk(310, 2), LATER, []),
        (OURS, walk(310, 2), LONG_AGO, SPLIT),
        (OURS, walk(60, 3), None, []),
        (OURS, [], LATER, []),
        (OURS, [], None, []),
        (OURS, NAN, LATER, []),
        (OURS[:1], walk(310, 2), LONG_AGO, []),
        (OURS[:1], [], LATER, []),
    ],
)
def test_another_company_is_refused_with_the_remedy(
    stored: list[Bar], served: list[Bar], first_trade: datetime | None, events: list[Split]
) -> None:
    with pytest.raises(OtherHistoryError, match=r"^AAPL: Yahoo.*reload --symbols AAPL") as caught:
        require_same_company("AAPL", stored, served, first_trade, events)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("reply", "doubtful"),
    [
        (OURS[-1:] + walk(310, 2, 60)[40:], False),  # the newest stored bar comes again, then news
        (divided(OURS[-1:], 4), True),
        (walk(310, 2)[-2:], True),
        (walk(310, 2)[-3:], False),  # enough to compare levels
        (walk(310, 2, 60)[40:], True),  # no hour is shared
        ([], False),
    ],
)
def test_few_shared_hours_of_which_none_is_equal_are_doubtful(reply: list[Bar], doubtful: bool) -> None:
    assert too_few_agree(reply, OURS) is doubtful
    assert not too_few_agree(reply, [])
