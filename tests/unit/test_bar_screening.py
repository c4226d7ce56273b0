from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from include.mltrading.market.bars import Bar, screen

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
        ({"volume": -1.0}, "volume"),
        ({"volume": NAN}, "volume"),
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
