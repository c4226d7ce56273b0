"""The simulator's bars: repeatable, on the exchange's grid, plausible."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from include.market_simulator import Bar, bars

ROOT = Path(__file__).parents[2]
NEW_YORK = ZoneInfo("America/New_York")
# AAPL with seed 7, 2025-11-28 09:30 New York. Who changes the generator changes every demo: do it on purpose.
PINNED = (160.10405, 165.93507, 159.87683, 164.87967, 821018)
DIGEST = """
import hashlib
from datetime import UTC, datetime
from include.market_simulator import bars
for symbol in ("MSFT", "BRK-B", "AAPL"):
    found = bars(11, symbol, datetime(2025, 3, 1, tzinfo=UTC), datetime(2025, 12, 1, tzinfo=UTC))
    print(symbol, hashlib.sha256(repr(found).encode()).hexdigest())
"""


def of_days(symbol: str, first: date, last: date, seed: int = 7) -> list[Bar]:
    start = datetime.combine(first, time(), NEW_YORK)
    return bars(seed, symbol, start, datetime.combine(last + timedelta(days=1), time(), NEW_YORK))


def new_york_times(found: list[Bar]) -> list[str]:
    return [f"{bar.timestamp.astimezone(NEW_YORK):%H:%M}" for bar in found]


def test_a_small_window_holds_exactly_the_bars_of_a_large_one() -> None:
    begin = datetime(2024, 6, 1, tzinfo=UTC)
    everything = bars(7, "AAPL", begin, begin + timedelta(days=700))
    random = np.random.default_rng(1)
    for _ in range(50):
        start = begin + timedelta(minutes=int(random.integers(690 * 24 * 60)))
        end = start + timedelta(minutes=int(random.integers(60 * 24 * 60)))
        wanted = [bar for bar in everything if start <= bar.timestamp < end]
        assert bars(7, "AAPL", start, min(end, begin + timedelta(days=700))) == wanted


def test_another_process_with_another_order_gives_the_same_bars() -> None:
    output = subprocess.run(
        [sys.executable, "-c", DIGEST], check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout
    theirs = dict(line.split() for line in output.splitlines())
    for symbol in ("AAPL", "BRK-B", "MSFT"):
        mine = bars(11, symbol, datetime(2025, 3, 1, tzinfo=UTC), datetime(2025, 12, 1, tzinfo=UTC))
        assert hashlib.sha256(repr(mine).encode()).hexdigest() == theirs[symbol]


def test_the_generator_still_gives_the_prices_it_always_gave() -> None:
    bar = of_days("AAPL", date(2025, 11, 28), date(2025, 11, 28))[0]
    assert bar[1:] == pytest.approx(PINNED, rel=1e-6)


def test_seeds_and_symbols_differ() -> None:
    day = date(2025, 11, 28)
    tables = [of_days("AAPL", day, day), of_days("MSFT", day, day), of_days("AAPL", day, day, seed=8)]
    assert len({bar.close for table in tables for bar in table}) == 12


def test_a_session_has_seven_bars_and_a_half_day_three_and_the_row_of_the_close() -> None:
    week = of_days("AAPL", date(2025, 11, 24), date(2025, 11, 28))
    seven = ["09:30", "10:30", "11:30", "12:30", "13:30", "14:30", "15:30"]
    assert new_york_times(week) == seven * 3 + [*seven[:3], "13:00"]
    close = week[-1]
    assert (len({*close[1:5]}), close.volume) == (1, 0)
    at = close.timestamp
    assert bars(7, "AAPL", at, at + timedelta(hours=1), now=at) == [close]
    assert date(2025, 11, 27) not in {bar.timestamp.astimezone(NEW_YORK).date() for bar in week}


@pytest.mark.parametrize(
    "closed", [date(2025, 1, 9), date(2025, 7, 4), date(2026, 1, 19), date(2026, 11, 22), date(2026, 12, 25)]
)
def test_a_day_without_a_session_has_no_bar(closed: date) -> None:
    assert of_days("AAPL", closed, closed) == []


@pytest.mark.parametrize(
    ("day", "hour"),
    [(date(2026, 3, 6), 14), (date(2026, 3, 9), 13), (date(2025, 10, 31), 13), (date(2025, 11, 3), 14)],
)
def test_the_open_follows_daylight_saving(day: date, hour: int) -> None:
    assert of_days("AAPL", day, day)[0].timestamp == datetime.combine(day, time(hour, 30), UTC)


@pytest.mark.parametrize("symbol", ["AAPL", "BRK-B", "XOM"])
def test_every_bar_since_2015_is_consistent_and_plausible(symbol: str) -> None:
    next_year = datetime.now(UTC).year + 1
    found = of_days(symbol, date(2015, 1, 1), date(next_year, 12, 31))
    assert {bar.timestamp.year for bar in found} == set(range(2015, next_year + 1))
    assert all(1 < bar.low <= min(bar.open, bar.close) for bar in found)
    assert all(max(bar.open, bar.close) <= bar.high < 5000 for bar in found)
    assert all(value == float(np.float32(value)) for bar in found for value in bar[1:5])
    assert all((bar.volume > 0) == (bar.timestamp.minute == 30) for bar in found)  # not the row of a close
    assert all(bar.volume == int(bar.volume) for bar in found)
    hours = [abs(bar.close / bar.open - 1) for bar in found]
    assert 0.001 < mean(hours) < 0.02
    assert max(hours) < 0.15


def test_nights_bring_gaps_and_hours_do_not() -> None:
    year = of_days("AAPL", date(2025, 1, 1), date(2025, 12, 31))
    nights, within = [], []
    for before, after in pairwise(year):
        is_night = before.timestamp.date() != after.timestamp.date()
        (nights if is_night else within).append(after.open / before.close - 1)
    assert stdev(nights) > 10 * stdev(within) > 0


def test_volume_is_high_at_the_open_and_the_close() -> None:
    year = of_days("AAPL", date(2025, 1, 1), date(2025, 12, 31))
    by_time: dict[str, list[float]] = {}
    for bar, at in zip(year, new_york_times(year), strict=True):
        by_time.setdefault(at, []).append(bar.volume)
    noon = mean(by_time["12:30"])
    assert mean(by_time["09:30"]) > 1.5 * noon
    assert mean(by_time["15:30"]) > 1.3 * noon


@pytest.mark.parametrize(
    "start", [datetime(2025, 11, 28, 14, 30, tzinfo=UTC), datetime(2025, 11, 26, 20, 30, tzinfo=UTC)]
)
def test_the_running_bar_grows_into_the_final_one(start: datetime) -> None:
    minutes = 60 if start.hour == 14 else 30
    end = start + timedelta(hours=1)
    final = bars(7, "AAPL", start, end)[0]
    states = [bars(7, "AAPL", start, end, now=start + timedelta(minutes=m))[0] for m in range(minutes + 1)]
    assert states[0][1:5] == (final.open,) * 4
    assert all(a.high <= b.high and a.low >= b.low and a.volume < b.volume for a, b in pairwise(states))
    assert states[-1] == final
    assert states[minutes // 2] != final
    assert bars(7, "AAPL", start, end, now=start + timedelta(minutes=5, seconds=59)) == [states[5]]


def test_nothing_later_than_now_exists() -> None:
    start = datetime(2025, 11, 24, tzinfo=UTC)
    now = datetime(2025, 11, 25, 16, 0, tzinfo=UTC)
    found = bars(7, "AAPL", start, start + timedelta(days=5), now=now)
    assert [bar.timestamp.hour for bar in found[7:]] == [14, 15]
    assert found[:-1] == bars(7, "AAPL", start, found[-1].timestamp)
    assert bars(7, "AAPL", now, start + timedelta(days=5), now=now) == []
