"""Which jumps are refused and which are news."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.resources import files

import pytest

from include.mltrading.market.bars import Bar, defect
from include.mltrading.market.spikes import find_spikes

START = datetime(2026, 1, 20, 14, 30, tzinfo=UTC)


def bars(*closes: float) -> list[Bar]:
    """Calm bars an hour apart with these closes."""
    return [
        Bar(START + timedelta(hours=hour), close * 0.999, close * 1.001, close * 0.998, close, 1000)
        for hour, close in enumerate(closes)
    ]


CALM = [100.0, 100.3, 99.8, 100.1, 100.4, 100.0, 99.7, 100.2]


def spikes(*after: float) -> list[int]:
    return [index - len(CALM) for index in find_spikes(bars(*CALM, *after))]


@pytest.mark.parametrize("factor", [100.0, 10.0, 2.0, 1.4, 0.7, 0.5, 0.1, 0.01])
@pytest.mark.parametrize("hours", [1, 2, 3])
def test_a_jump_that_the_next_bars_take_back_is_refused(factor: float, hours: int) -> None:
    assert spikes(*[100 * factor] * hours, 100.2, 99.9, 100.1) == list(range(hours))


@pytest.mark.parametrize("factor", [3.0, 1.6, 0.6, 0.3, 0.05])
def test_a_jump_that_holds_is_news(factor: float) -> None:
    assert spikes(*[100 * factor * x for x in (1, 1.02, 0.97, 1.01)]) == []


def test_an_earnings_gap_is_news_in_its_first_hour() -> None:
    assert spikes(60.0) == []
    assert spikes(60.0, 61.0) == []


@pytest.mark.parametrize("factor", [100.0, 10.0, 0.1])
def test_an_extreme_newest_bar_waits_for_the_next_ones(factor: float) -> None:
    held = [100 * factor] * 4
    assert [spikes(*held[:count]) for count in (1, 2, 3, 4)] == [[0], [0, 1], [0, 1, 2], []]


def continuous(*closes: float) -> list[Bar]:
    """Bars that open where the one before closed."""
    opens = [closes[0], *closes[:-1]]
    return [
        Bar(
            START + timedelta(hours=hour), first, max(first, last) * 1.01, min(first, last) * 0.99, last, 1000
        )
        for hour, (first, last) in enumerate(zip(opens, closes, strict=True))
    ]


@pytest.mark.parametrize("factor", [8.0, 1.38, 0.6, 0.1])
@pytest.mark.parametrize("hours", [1, 2, 3])
def test_a_jump_at_which_the_next_bar_opens_was_traded(factor: float, hours: int) -> None:
    after = [100.2, 99.9, 100.1, 100.0]
    assert find_spikes(continuous(*CALM, *[100 * factor] * hours, *after)) == {}
    assert find_spikes(continuous(*CALM, *[100 * factor] * hours, after[0])) == {}


def test_a_gap_that_is_given_back_hour_by_hour_was_traded() -> None:
    series = continuous(*CALM, 138.0, 101.0, 100.4, 100.1)
    gap = series[8]._replace(open=137.0, low=130.0)
    assert find_spikes([*series[:8], gap, *series[9:]]) == {}


def test_a_close_that_the_next_open_denies_is_refused() -> None:
    series = continuous(*CALM, 138.0, 100.2, 100.4, 100.1)
    series[9] = series[9]._replace(open=100.1, high=101.0)
    assert list(find_spikes(series)) == [8]


def test_a_crash_that_half_recovers_is_news() -> None:
    assert spikes(80.0, 68.0, 84.0, 82.0, 79.0) == []


def test_a_halt_is_news() -> None:
    assert spikes(100.2, 100.2, 100.2, 70.0, 69.0, 71.0, 70.5) == []


def test_a_wild_stock_may_do_what_a_calm_one_may_not() -> None:
    wild = [100.0, 160.0, 120.0, 210.0, 130.0, 190.0, 110.0, 170.0]
    assert find_spikes(bars(*wild, 300.0, 165.0, 250.0, 160.0)) == {}


@pytest.mark.parametrize("name", ["open", "high", "low", "close"])
def test_a_single_wrong_price_is_found(name: str) -> None:
    series = bars(*CALM, *CALM)
    wrong = series[8]._replace(**{name: 1.0 if name == "low" else 10_000.0})
    wrong = wrong._replace(high=max(wrong[1:5]), low=min(wrong[1:5]))
    assert list(find_spikes([*series[:8], wrong, *series[9:]])) == [8]


def test_a_first_bar_is_judged_by_those_after_it() -> None:
    assert list(find_spikes(bars(10_000.0, *CALM)[0:1] + bars(*CALM, *CALM)[1:])) == [0]


def real_days() -> Iterator[tuple[str, list[Bar]]]:
    """Daily bars 2000 to 2013, as they were traded: two crashes, splits that nobody restated."""
    by_symbol: dict[str, list[Bar]] = {}
    with gzip.open(str(files("bokeh_sampledata") / "_data" / "stocks.csv.gz"), "rt") as file:
        for row in csv.DictReader(file):
            day = datetime.fromisoformat(row["Date"]).replace(tzinfo=UTC)
            values = (float(row[name]) for name in ("Open", "High", "Low", "Close", "Volume"))
            by_symbol.setdefault(row["Ticker"], []).append(Bar(day, *values))
    for symbol, days in by_symbol.items():
        yield symbol, sorted(days)


def test_nothing_in_thirteen_real_years_is_refused() -> None:
    seen = dict(real_days())
    assert set(seen) == {"AAPL", "FB", "GOOG", "IBM", "MSFT"}
    assert sum(map(len, seen.values())) > 12_000
    for days in seen.values():
        assert [bar for bar in days if defect(bar)] == []
        assert find_spikes(days) == {}
        # Nor is a newest day refused for want of the next.
        assert all(not find_spikes(days[end - 60 : end]) for end in range(60, len(days), 97))
