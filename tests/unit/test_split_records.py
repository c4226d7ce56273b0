from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from include.mltrading.errors import MalformedReplyError
from include.mltrading.market.bars import Bar
from include.mltrading.market.splits import Split, reconcile


def flat(day: date, price: float) -> list[Bar]:
    """A session's bars that all trade at one price; it opens at 13:30 UTC, as in summer."""
    first = datetime(day.year, day.month, day.day, 13, 30, tzinfo=UTC)
    return [Bar(first + timedelta(hours=hour), price, price, price, price, 1000.0) for hour in range(7)]


def test_two_announced_splits_since_the_last_bar_are_recorded_as_announced() -> None:
    """The vendor has restated both, and the table's last bars come before either."""
    stored = {bar.timestamp: bar for day in (11, 12) for bar in flat(date(2026, 6, day), 100)}
    days = (date(2026, 6, 11), date(2026, 6, 12), date(2026, 6, 15), date(2026, 8, 3), date(2026, 8, 4))
    reply = [bar for day in days for bar in flat(day, 1000 / 3)]
    first, second = Split(date(2026, 6, 15), 0.1), Split(date(2026, 8, 4), 3.0)

    adjustment = reconcile("A", reply, stored, [first, second], [])

    assert [item.split for item in adjustment.found] == [first, second]
    assert abs(adjustment.stored[0].ratio - 0.3) < 1e-9


def test_what_no_split_explains_is_told_by_the_bars_that_differ() -> None:
    days = [date(2026, 6, day) for day in (10, 11, 12)]
    stored = {bar.timestamp: bar for day in days for bar in flat(day, 100)}
    reply = [*flat(days[0], 100), *flat(days[1], 137), *flat(days[2], 137)]
    with pytest.raises(MalformedReplyError, match=r"14 of 21 bars differ .* typically 1\.37 times"):
        reconcile("A", reply, stored, [], [])
