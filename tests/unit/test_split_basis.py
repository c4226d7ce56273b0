"""A split however the vendor treats it: the table ends on today's basis, and the record says what was done.

Prices are a random walk on today's basis; each scenario is what the vendor makes of it, day by day.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta

import pytest

from include.mltrading.errors import OtherHistoryError
from include.mltrading.market.bars import Bar
from include.mltrading.market.calendar import bars_of, new_york_date, sessions_between
from include.mltrading.market.splits import Adjustment, Found, Recorded, divided, reconcile
from include.mltrading.market.yahoo import Dividend, Split

FIRST, BEFORE, DAY, NEXT, LAST = (date(2026, month, day) for month, day in
                                  ((10, 26), (11, 17), (11, 18), (11, 19), (11, 25)))  # fmt: skip
TICKS = [date(2026, 11, day) for day in (18, 19, 20, 23, 24, 25)]
ODD = date(2026, 11, 16)
Vendor = Callable[[date], float]  # of a day: by what the vendor's prices exceed today's basis


def walk(*, sigma: float = 0.004, seed: int = 1, news: float = 0.0) -> list[Bar]:
    """True bars on today's basis; news: how far the price moves overnight before DAY (a logarithm)."""
    dice, price, bars = random.Random(seed), 50.0, []  # noqa: S311 - no secret
    for session in sessions_between(FIRST, LAST):
        price *= math.exp(news) if session.day == DAY else 1
        for start, _ in bars_of(session):
            close = price * math.exp(dice.gauss(0, sigma))
            bars.append(Bar(start, price, max(price, close) * 1.001, min(price, close) * 0.999, close, 1e5))
            price = close
    return bars


class Table:
    """Stored bars and the record, which take in replies as a collection does."""

    def __init__(self, true: Sequence[Bar]) -> None:
        self.true = true
        self.bars: dict[datetime, Bar] = {}
        self.record: dict[date, Recorded] = {}

    def collect(
        self, until: date, vendor: Vendor, events: Sequence[Split] = (), since: date | None = None
    ) -> Adjustment:
        """One reply of the last three sessions, or from `since` on, up to the end of the day `until`."""
        sessions = sessions_between(FIRST, until)
        start = since or min([sessions[-3:][0].day, *(split - timedelta(days=3) for split in self._open())])
        served = [divided(bar, 1 / vendor(new_york_date(bar.timestamp))) for bar in self.true]
        reply = [bar for bar in served if start <= new_york_date(bar.timestamp) <= until]
        told = [event for event in events if start <= event.ex_date <= until]
        adjustment = reconcile("A", reply, self.bars, told, list(self.record.values()), (start, until))
        if adjustment.moves_table and start > FIRST:
            return self.collect(until, vendor, events, FIRST)
        for found in adjustment.found:
            self._restate(found)
        for bar, _ in adjustment.rebased([(bar, True) for bar in reply]):
            self.bars[bar.timestamp] = bar
        return adjustment

    def _open(self) -> list[date]:
        return [day for day, item in self.record.items() if not item.decided]

    def _restate(self, found: Found) -> None:
        day = found.split.ex_date
        self.bars = {
            start: divided(bar, found.divide if new_york_date(start) < (found.before or day) else 1)
            for start, bar in self.bars.items()
        }
        held = self.record.pop(found.replaces or day, None)
        if not found.ended:
            applied = (held.applied if held else 1.0) * found.divide
            self.record[day] = Recorded(found.split, applied, found.decided)

    def error(self) -> float:
        """The largest relative distance of a stored close from the truth."""
        return max(abs(self.bars[bar.timestamp].close / bar.close - 1)
                   for bar in self.true if bar.timestamp in self.bars)  # fmt: skip


def before(day: date, times: float) -> Vendor:
    """Bars before the day exceed today's basis so many times."""
    return lambda of: times if of < day else 1.0


def right(of: date) -> float:
    return 1.0


def but_for(day: date, times: float, vendor: Vendor) -> Vendor:
    """As the vendor has it but for one day."""
    return lambda of: times if of == day else vendor(of)


def told(ratio: float, day: date = DAY) -> list[Split]:
    return [Split(day, ratio)]


# Name -> (ratio -> what the vendor serves at the first two ticks; later it is right).
WRONG_AT_FIRST: dict[str, Callable[[float], list[tuple[Vendor, list[Split]]]]] = {
    "restated twice": lambda r: [(before(DAY, 1 / r), told(r))],
    "restated the wrong way, and told so": lambda r: [(before(DAY, r * r), told(1 / r))],
    "told the wrong way only": lambda r: [(right, told(1 / r))],
    "one day restated": lambda r: [(but_for(ODD, 1.0, before(DAY, r)), told(r))],
    "the day before restated": lambda r: [(but_for(BEFORE, 1.0, before(DAY, r)), told(r))],
    "all but one day restated": lambda r: [(but_for(ODD, r, right), told(r))],
    "restated a day late": lambda r: [(before(DAY, r), told(r))],
    "told days late": lambda r: [(before(DAY, r), []), (before(DAY, r), [])],
    "told under the day before": lambda r: [(right, told(r, BEFORE))],
}


@pytest.mark.parametrize("ratio", [2.0, 0.1, 1.5])
@pytest.mark.parametrize("name", WRONG_AT_FIRST)
def test_whatever_the_vendor_does_first_a_right_reply_leads_to_the_right_table(
    name: str, ratio: float
) -> None:
    table = Table(walk())
    table.collect(BEFORE, before(DAY, ratio), since=FIRST)
    serves = WRONG_AT_FIRST[name](ratio)
    for number, tick in enumerate(TICKS):
        vendor, events = serves[number] if number < len(serves) else (right, told(ratio))
        table.collect(tick, vendor, events)
        if name != "told days late" or number >= len(serves):
            assert table.error() < 1e-9, tick
    assert {day: (item.split.ratio, item.applied) for day, item in table.record.items()} == {
        DAY: (ratio, ratio)
    }


@pytest.mark.parametrize("ratio", [2.0, 0.05, 1.196, 1.046])
@pytest.mark.parametrize("restated", [True, False])
def test_a_split_of_any_size_is_applied_whether_the_vendor_restates_or_never_does(
    ratio: float, restated: bool
) -> None:
    table = Table(walk(sigma=0.003))
    table.collect(BEFORE, before(DAY, ratio), since=FIRST)
    for tick in TICKS:
        table.collect(tick, right if restated else before(DAY, ratio), told(ratio))
        assert table.error() < 1e-9
    assert table.record[DAY] == Recorded(Split(DAY, ratio), ratio, decided=True)


def test_what_a_split_and_the_nights_news_leave_open_is_decided_when_the_vendor_restates() -> None:
    """A price that falls by half of what the split says: news of that size up or down, who knows."""
    table = Table(walk(sigma=0.003, news=math.log(1.196) / 2))
    table.collect(BEFORE, before(DAY, 1.196), since=FIRST)
    for tick in TICKS[:4]:
        table.collect(tick, before(DAY, 1.196), told(1.196))
        assert table.record[DAY] == Recorded(Split(DAY, 1.196), 1.0, decided=False)
    table.collect(TICKS[4], right, told(1.196))
    assert table.error() < 1e-9
    assert table.record[DAY] == Recorded(Split(DAY, 1.196), 1.196, decided=True)


@pytest.mark.parametrize("day", [BEFORE, NEXT])
@pytest.mark.parametrize(("ratio", "announced"), [(2.0, 5.0), (0.1, 0.2), (1.5, 1.2)])
def test_a_split_told_with_a_wrong_day_and_ratio_is_open_until_the_vendor_restates(
    day: date, ratio: float, announced: float
) -> None:
    table = Table(walk())
    table.collect(BEFORE, before(DAY, ratio), since=FIRST)
    for tick in TICKS[:5]:
        table.collect(tick, before(DAY, ratio), told(announced, day))
    assert table.record == {day: Recorded(Split(day, announced), 1.0, decided=False)}
    table.collect(LAST, right, told(announced, day))
    assert table.error() < 1e-9
    assert math.prod(item.applied for item in table.record.values()) == pytest.approx(ratio)


def test_a_split_that_nobody_asks_for_any_more_stays_as_undecided_as_it_was() -> None:
    reply = [bar for bar in walk() if new_york_date(bar.timestamp) > TICKS[3]]
    stored = {bar.timestamp: bar for bar in reply[:-1]}
    recorded = [Recorded(Split(DAY, 1.196), 1.0, decided=False)]
    assert reconcile("A", reply, stored, [], recorded, (TICKS[4], LAST)) == Adjustment()


@pytest.mark.parametrize("news", [0.3, -0.3])
def test_news_on_the_day_of_a_restated_split_stays_in_the_prices(news: float) -> None:
    table = Table(walk(news=news))
    table.collect(BEFORE, before(DAY, 1.5), since=FIRST)
    table.collect(DAY, right, told(1.5))
    assert table.error() < 1e-9


@pytest.mark.parametrize("restated", [True, False])
def test_a_split_that_the_vendor_withdraws_is_taken_back(restated: bool) -> None:
    table = Table(walk())
    table.collect(BEFORE, right, since=FIRST)
    table.collect(DAY, before(DAY, 0.5) if restated else right, told(2.0))
    for tick in TICKS[1:3]:
        table.collect(tick, right)
        assert table.error() < 1e-9
    assert table.record == {}


def test_history_that_was_restated_for_a_split_to_come_moves_back_when_it_does_not_come() -> None:
    table = Table(walk())
    table.collect(date(2026, 11, 16), right, since=FIRST)
    table.collect(BEFORE, lambda of: 0.5)  # all of it, in the evening before
    assert [item.applied for item in table.record.values()] == [2.0]
    table.collect(DAY, right)
    assert table.error() < 1e-9
    assert table.record == {}


def test_a_split_told_for_another_day_than_it_was_traded_moves_on_record() -> None:
    table = Table(walk())
    table.collect(BEFORE, before(NEXT, 2.0), since=FIRST)
    table.collect(DAY, before(NEXT, 2.0), told(2.0))
    for tick in TICKS[1:]:
        table.collect(tick, before(NEXT, 2.0), told(2.0, NEXT))
        assert table.error() < 1e-9
    assert table.record == {NEXT: Recorded(Split(NEXT, 2.0), 2.0, decided=True)}


@pytest.mark.parametrize("ratio", [2.0, 0.1])
def test_the_ex_dates_first_bars_on_the_old_basis_come_to_the_new_one(ratio: float) -> None:
    table = Table(walk())
    table.collect(BEFORE, before(DAY, ratio), since=FIRST)
    third = sorted(bar.timestamp for bar in table.true if new_york_date(bar.timestamp) == DAY)[2]
    table.true = [divided(bar, 1 / ratio if bar.timestamp < third else 1.0) for bar in table.true]
    table.collect(DAY, right, told(ratio))
    table.true = [divided(bar, ratio if bar.timestamp < third else 1.0) for bar in table.true]
    assert table.error() < 1e-9


def test_stored_bars_on_no_basis_between_good_ones_give_way_to_the_vendors() -> None:
    table = Table(walk())
    table.collect(TICKS[2], right, told(0.1), FIRST)
    wrong = sorted(start for start in table.bars if new_york_date(start) == NEXT)[:2]
    for start in wrong:
        table.bars[start] = divided(table.bars[start], 10.0)
    assert table.collect(TICKS[2], right, told(0.1)).mistaken == set(wrong)
    assert table.error() < 1e-9


def test_a_split_told_a_day_late_and_not_restated_yet_is_no_other_history() -> None:
    table = Table(walk())
    table.collect(BEFORE, before(DAY, 2.0), since=FIRST)
    table.collect(DAY, before(DAY, 2.0))  # nobody can know
    for tick, vendor in ((NEXT, before(DAY, 2.0)), (TICKS[2], right)):
        table.collect(tick, vendor, told(2.0, NEXT))
        assert table.error() < 1e-9


def test_a_crash_by_half_after_a_split_is_news() -> None:
    true = [
        divided(bar, 2.0 if new_york_date(bar.timestamp) >= date(2026, 11, 20) else 1.0) for bar in walk()
    ]
    table = Table(true)
    table.collect(BEFORE, before(DAY, 2.0), since=FIRST)
    for tick in TICKS:
        table.collect(tick, right, told(2.0))
        assert table.error() < 1e-9


def test_a_large_ratio_that_nobody_announced_is_a_split_once_three_sessions_stand_by_it() -> None:
    """Before that it may be a wrong unit."""
    table = Table(walk())
    table.collect(BEFORE, before(DAY, 1 / 60), since=FIRST)
    for tick in TICKS[:2]:
        with pytest.raises(OtherHistoryError, match="no split explains it"):
            table.collect(tick, right, since=date(2026, 11, 16))
    table.collect(TICKS[2], right, since=date(2026, 11, 16))
    assert table.error() < 1e-9
    [(day, item)] = table.record.items()
    assert (day, round(1 / item.applied)) == (DAY, 60)


def test_a_new_symbols_history_is_brought_to_one_basis_where_the_vendor_restated_some_of_it() -> None:
    table = Table(walk())
    table.collect(DAY, but_for(date(2026, 11, 12), 1.0, before(DAY, 2.0)), told(2.0), FIRST)
    assert table.error() < 1e-9


def flat(day: date, price: float) -> list[Bar]:
    """A session's bars that all trade at one price; it opens at 13:30 UTC, as in summer."""
    first = datetime.combine(day, time(13, 30), UTC)
    return [Bar(first + timedelta(hours=hour), price, price, price, price, 1000.0) for hour in range(7)]


def test_two_announced_splits_since_the_last_bar_are_recorded_as_announced() -> None:
    """The vendor has restated both, and the table's last bars come before either."""
    stored = {bar.timestamp: bar for day in (11, 12) for bar in flat(date(2026, 6, day), 100)}
    days = (date(2026, 6, 11), date(2026, 6, 12), date(2026, 6, 15), date(2026, 8, 3), date(2026, 8, 4))
    reply = [bar for day in days for bar in flat(day, 1000 / 3)]
    first, second = Split(date(2026, 6, 15), 0.1), Split(date(2026, 8, 4), 3.0)

    adjustment = reconcile("A", reply, stored, [first, second], [])

    assert [(item.split, item.divide) for item in adjustment.found] == [(first, 0.1), (second, 3.0)]


def test_what_no_split_explains_is_told_by_the_bars_that_differ() -> None:
    days = [date(2026, 6, day) for day in (10, 11, 12)]
    stored = {bar.timestamp: bar for day in days for bar in flat(day, 100)}
    reply = [*flat(days[0], 100), *flat(days[1], 137), *flat(days[2], 137)]
    with pytest.raises(OtherHistoryError, match=r"14 of 21 bars differ .* typically 1\.37 times"):
        reconcile("A", reply, stored, [], [])


@pytest.mark.parametrize(("stored", "amount"), [(None, 0.25), (0.25, 0.25), (0.5, 0.5)])
def test_a_dividend_stands_on_the_basis_of_the_bars_around_it(stored: float | None, amount: float) -> None:
    """The reply's bars are not restated; its dividend is not either, unless the record says that it is."""
    basis: list[tuple[datetime, float | None]] = [
        (datetime(2026, 11, 1, tzinfo=UTC), 2.0), (datetime(2026, 11, 18, tzinfo=UTC), 1.0)
    ]  # fmt: skip
    assert Adjustment(basis).amount(Dividend(date(2026, 11, 10), 0.5), stored) == amount
