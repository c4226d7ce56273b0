"""One hourly bar, as the vendor serves it and as the table stores it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from include.mltrading.market.calendar import new_york_date

CONTEXT_BARS = 20  # bars before and after one bar that tell what moves are usual
CONFIRMING_BARS = 3  # bars after a jump within which it may be taken back

OUTSIDE = "outside the exchange's sessions"
UNCONFIRMED = "that later bars must confirm"  # how the reason of a bar that waits ends
# Shares in one hour, from which on a volume is impossible: over thirty times the busiest day of all US
# exchanges together, with all their symbols (about 31 billion shares, on 9 April 2025).
IMPOSSIBLE_VOLUME = 10**12
# US dollars a share, on any split basis: Berkshire Hathaway's A shares, never split, stand below 10**6;
# orders go down to 0.0001 (Regulation NMS, rule 612), which a forward split may divide.
LEAST_PRICE, MOST_PRICE = 1e-9, 1e9


class Bar(NamedTuple):
    """An OHLCV bar of one hour.

    timestamp: the bar's start, timezone-aware, UTC. open, high, low, close: US dollars a share, on the
    split basis of the day of the fetch. volume: shares. A vendor's bar may hold NaN; a stored one never does.
    """

    timestamp: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float


class RefusedBar(NamedTuple):
    """A vendor's bar that must not enter the table, and why."""

    bar: Bar
    reason: str


def screen(
    bars: Iterable[Bar], grid: Mapping[datetime, datetime], final_until: datetime
) -> tuple[list[tuple[Bar, bool]], list[RefusedBar]]:
    """Sort a vendor's bars into good ones, each with whether it is final, and refused ones.

    grid: the exchange's bars of the window, start -> end. final_until: a bar that ends by then is final.
    Good bars come in time order, each once. Other rows of a session's day are left out: the vendor sends
    the running moment as a row of its own, which no later reply would ever overwrite, and after an early
    close the trades of the evening. Bars of a day without a session are refused. A row without any value is
    an hour without a trade: no bar, and nothing refused.
    """
    good: dict[datetime, Bar] = {}
    refused = []
    days = {new_york_date(start) for start in grid}
    for bar in bars:
        if _is_untraded(bar):
            continue
        if bar.timestamp not in grid:
            if new_york_date(bar.timestamp) not in days:
                refused.append(RefusedBar(bar, OUTSIDE))
            continue
        reason = defect(bar)
        if reason is None and good.get(bar.timestamp, bar) != bar:
            reason = "a second, different bar for the same hour"
        if reason is None:
            good[bar.timestamp] = bar._replace(volume=int(bar.volume))
        else:
            refused.append(RefusedBar(bar, reason))
    return [(good[start], grid[start] <= final_until) for start in sorted(good)], refused


def hours_without_trade(bars: Iterable[Bar], grid: Mapping[datetime, datetime]) -> list[datetime]:
    """Starts of the exchange's bars that the vendor serves as a row without any price: nobody traded."""
    return sorted({bar.timestamp for bar in bars if bar.timestamp in grid and _is_untraded(bar)})


def _is_untraded(bar: Bar) -> bool:
    """Whether the vendor has no price for the hour, and no share that changed hands in it."""
    return all(math.isnan(price) for price in bar[1:5]) and not bar.volume > 0


def defect(bar: Bar) -> str | None:
    """Why the bar could not stand in the table, by itself; None where it could."""
    prices = (bar.open, bar.high, bar.low, bar.close)
    if not all(math.isfinite(price) for price in prices):
        return "a price is missing or not finite"
    if min(prices) <= 0:
        return "a price is not positive"
    if min(prices) < LEAST_PRICE or max(prices) > MOST_PRICE:
        return "a price is beyond that of any share"
    if bar.low > min(bar.open, bar.close) or bar.high < max(bar.open, bar.close):
        return "low and high do not enclose open and close"
    if not math.isfinite(bar.volume) or bar.volume < 0:
        return "the volume is missing or negative"
    if bar.volume >= IMPOSSIBLE_VOLUME:
        return "the volume is more than all exchanges trade in a month"
    return None
