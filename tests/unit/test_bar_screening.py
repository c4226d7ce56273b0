from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from include.mltrading.errors import MalformedReplyError
from include.mltrading.market.bars import Bar, screen
from include.mltrading.market.calendar import grid
from include.mltrading.market.trust import require_trading_hours

NINE_THIRTY = datetime(2026, 1, 20, 14, 30, tzinfo=UTC)
GRID = {NINE_THIRTY + timedelta(hours=i): NINE_THIRTY + timedelta(hours=i + 1) for i in range(3)}
GOOD = Bar(NINE_THIRTY, 10.0, 11.0, 9.0, 10.5, 1000.0)
NAN = float("nan")


def test_a_bar_is_final_when_it_has_ended_by_the_given_instant() -> None:
    bars = [GOOD._replace(timestamp=start) for start in GRID]
    good, refused = screen(bars, GRID, NINE_THIRTY + timedelta(hours=2))
    assert [is_final for _, is_final in good] == [True, True, False]
    assert refused == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"close": NAN}, "not finite"),
        ({"open": float("inf")}, "not finite"),
        ({"low": 0.0}, "not positive"),
        ({"low": -9.0}, "not positive"),
        ({"high": 8.0}, "do not enclose"),
        ({"high": 10.4}, "do not enclose"),
        ({"low": 10.2}, "do not enclose"),
        ({"low": 5e-324}, "beyond that of any share"),
        ({"high": 1e300}, "beyond that of any share"),
        ({"volume": -1.0}, "volume"),
        ({"volume": NAN}, "volume"),
        ({"volume": 1e12}, "volume"),
        ({"open": NAN, "high": NAN, "low": NAN, "close": NAN}, "not finite"),  # though shares changed hands
    ],
)
def test_a_defective_bar_is_refused_with_its_reason(change: dict[str, float], reason: str) -> None:
    good, refused = screen([GOOD._replace(**change)], GRID, NINE_THIRTY)
    assert good == []
    assert reason in refused[0].reason


def test_a_bar_between_two_grid_points_never_enters() -> None:
    off_grid = GOOD._replace(timestamp=NINE_THIRTY + timedelta(minutes=60, seconds=5))
    good, refused = screen([GOOD, off_grid], GRID, NINE_THIRTY)
    assert [bar.timestamp for bar, _ in good] == [NINE_THIRTY]
    assert refused == []


def test_bars_come_in_time_order_and_each_once() -> None:
    later = GOOD._replace(timestamp=NINE_THIRTY + timedelta(hours=1))
    good, refused = screen([later, GOOD, GOOD], GRID, NINE_THIRTY)
    assert [bar.timestamp for bar, _ in good] == [GOOD.timestamp, later.timestamp]
    assert refused == []


def test_a_second_different_bar_for_the_same_hour_is_refused() -> None:
    good, refused = screen([GOOD, GOOD._replace(close=10.6)], GRID, NINE_THIRTY)
    assert [bar.close for bar, _ in good] == [10.5]
    assert "same hour" in refused[0].reason


def test_volumes_are_whole_shares() -> None:
    [(bar, _)], _ = screen([GOOD], GRID, NINE_THIRTY)
    assert isinstance(bar.volume, int)


@pytest.mark.parametrize("volume", [NAN, 0.0])
def test_an_hour_without_a_trade_is_no_bar_and_nothing_refused(volume: float) -> None:
    assert screen([Bar(NINE_THIRTY, NAN, NAN, NAN, NAN, volume)], GRID, NINE_THIRTY) == ([], [])


def test_the_evening_is_left_out_and_a_day_without_a_session_is_refused() -> None:
    evening, sunday = (GOOD._replace(timestamp=NINE_THIRTY + timedelta(hours=h)) for h in (8, -48))
    good, refused = screen([GOOD, evening, sunday], GRID, NINE_THIRTY)
    assert [bar.timestamp for bar, _ in good] == [NINE_THIRTY]
    assert [bar for bar, _ in refused] == [sunday]


def rows_of(shift: timedelta, *days: datetime) -> list[Bar]:
    return [GOOD._replace(timestamp=start + shift) for day in days for start in grid(day, day + A_DAY)]


A_DAY = timedelta(days=1)
HALF_DAY = datetime(2025, 11, 28, 5, tzinfo=UTC)
FULL_DAYS = (HALF_DAY - 2 * A_DAY, HALF_DAY + 3 * A_DAY)


@pytest.mark.parametrize("days", [(HALF_DAY,), (FULL_DAYS[0], HALF_DAY), (HALF_DAY, FULL_DAYS[1])])
def test_the_evening_after_an_early_close_is_no_other_time_zone(days: tuple[datetime, ...]) -> None:
    evening = [GOOD._replace(timestamp=HALF_DAY + timedelta(hours=h, minutes=30)) for h in range(13, 17)]
    require_trading_hours("AAPL", rows_of(timedelta(), *days) + evening, grid(days[0], days[-1] + A_DAY))


@pytest.mark.parametrize("hours", [-5, -1, 1, 0.5, 5])
def test_rows_that_another_time_zone_would_bring_onto_the_grid_are_refused(hours: float) -> None:
    with pytest.raises(MalformedReplyError, match="another time zone"):
        require_trading_hours(
            "AAPL", rows_of(timedelta(hours=hours), *FULL_DAYS), grid(FULL_DAYS[0], FULL_DAYS[1] + A_DAY)
        )
