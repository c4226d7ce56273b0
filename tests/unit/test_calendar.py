from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import UsageError
from include.mltrading.market.calendar import (
    NEW_YORK,
    bar_before,
    bars_of,
    grid,
    is_session,
    last_sessions,
    market_time_ago,
    new_york_date,
    served_bars,
    sessions_between,
)


@pytest.fixture
def deployments_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A way to put special days into a deployments file that counts."""
    file = tmp_path / "deployments.yaml"
    monkeypatch.setenv("MLTRADING_DEPLOYMENTS_FILE", str(file))
    whole = Settings().deployments_file.read_text()
    assert "special_days: []" in whole
    written = 0

    def write(days: str) -> None:
        nonlocal written
        written += 1
        file.write_text(whole.replace("special_days: []", f"special_days: [{days}]"))
        os.utime(file, (written, written))

    return write


def new_york(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=NEW_YORK)  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("day", "opens"),
    [
        (date(2025, 11, 26), True),
        (date(2025, 11, 27), False),  # Thanksgiving
        (date(2025, 11, 28), True),  # half day
        (date(2025, 11, 29), False),  # Saturday
        (date(2026, 1, 19), False),  # Martin Luther King Day, a Monday
    ],
)
def test_holidays_and_weekends_are_no_sessions(day: date, opens: bool) -> None:
    assert is_session(day) is opens


def test_a_full_session_has_seven_bars_of_which_the_last_takes_half_an_hour() -> None:
    [session] = sessions_between(date(2026, 1, 20), date(2026, 1, 20))
    bars = bars_of(session)
    assert [start.astimezone(NEW_YORK).strftime("%H:%M") for start, _ in bars] == [
        "09:30", "10:30", "11:30", "12:30", "13:30", "14:30", "15:30",
    ]  # fmt: skip
    assert bars[-1][1] - bars[-1][0] == timedelta(minutes=30)
    assert bars[-1][1].astimezone(NEW_YORK).strftime("%H:%M") == "16:00"


def starts(bars: Iterable[datetime]) -> list[str]:
    return [start.astimezone(NEW_YORK).strftime("%H:%M") for start in bars]


def test_a_half_day_has_three_bars_and_takes_a_fourth() -> None:
    day = new_york(2025, 11, 28)
    assert starts(start for start, _ in served_bars(day, day + timedelta(days=1))) == [
        "09:30",
        "10:30",
        "11:30",
    ]
    possible = grid(day, day + timedelta(days=1))
    assert starts(possible) == ["09:30", "10:30", "11:30", "12:30"]
    assert max(possible.values()) == new_york(2025, 11, 28, 13)


@pytest.mark.parametrize(
    ("change", "served", "possible"),
    [
        ("closed: true", [], []),
        ('closes: "14:00"', ["09:30", "10:30", "11:30", "12:30"], ["13:30"]),
        ('closes: "13:30"', ["09:30", "10:30", "11:30", "12:30"], []),
        ('opens: "10:00"', ["10:30", "11:30", "12:30", "13:30", "14:30", "15:30"], ["09:30"]),
        ('opens: "11:30", closes: "15:30"', ["11:30", "12:30", "13:30", "14:30"], []),
    ],
)
def test_a_day_that_the_deployments_file_names_has_the_hours_given_there(
    deployments_with: Callable[[str], None], change: str, served: list[str], possible: list[str]
) -> None:
    deployments_with(f"{{day: 2026-11-18, {change}}}")
    day = new_york(2026, 11, 18)
    until = day + timedelta(days=1)
    assert starts(start for start, _ in served_bars(day, until)) == served
    assert starts(grid(day, until)) == sorted(served + possible)
    assert is_session(date(2026, 11, 18)) is bool(served)
    assert [session.day.day for session in last_sessions(2, until)] == ([17, 18] if served else [16, 17])


def test_a_corrected_deployments_file_counts_at_once(deployments_with: Callable[[str], None]) -> None:
    deployments_with("{day: 2026-11-18, closed: true}")
    assert not is_session(date(2026, 11, 18))
    deployments_with("")
    assert is_session(date(2026, 11, 18))


def test_the_bar_before_an_open_is_the_last_of_the_session_before() -> None:
    assert bar_before(new_york(2026, 1, 20, 9, 30)) == new_york(2026, 1, 16, 15, 30)  # over a holiday
    assert bar_before(new_york(2025, 12, 1, 9, 30)) == new_york(2025, 11, 28, 11, 30)  # a half day
    assert bar_before(new_york(2026, 1, 20, 10)) == new_york(2026, 1, 20, 9, 30)


@pytest.mark.parametrize("change", ['closes: "10:00"', 'opens: "15:00"'])
def test_market_time_and_bars_are_found_over_days_that_were_cut_short(
    deployments_with: Callable[[str], None], change: str
) -> None:
    days = (16, 17, 18)
    deployments_with(", ".join(f"{{day: 2026-11-{day}, {change}}}" for day in days))
    open_ = new_york(2026, 11, 19, 9, 30)
    served = [start for start, _ in served_bars(new_york(2026, 11, 16), open_)]
    assert bar_before(open_) == (served[-1] if served else new_york(2026, 11, 13, 15, 30))
    short = len(days) * timedelta(minutes=30 if "closes" in change else 60)
    assert market_time_ago(short + timedelta(hours=1), open_) == new_york(2026, 11, 13, 15)


def test_the_grid_follows_daylight_saving() -> None:
    winter = grid(new_york(2026, 3, 6), new_york(2026, 3, 7))
    summer = grid(new_york(2026, 3, 9), new_york(2026, 3, 10))
    assert min(winter).astimezone(UTC).hour == 14
    assert min(summer).astimezone(UTC).hour == 13
    assert len(winter) == len(summer) == 7


def test_the_grid_takes_the_start_of_its_window_and_leaves_the_end() -> None:
    window = grid(new_york(2026, 1, 20, 10, 30), new_york(2026, 1, 20, 12, 30))
    assert [start.astimezone(NEW_YORK).hour for start in window] == [10, 11]


def test_before_the_open_todays_session_does_not_count() -> None:
    monday_nine = new_york(2026, 1, 26, 9)
    assert [session.day.day for session in last_sessions(3, monday_nine)] == [21, 22, 23]
    assert [session.day.day for session in last_sessions(3, monday_nine + timedelta(hours=1))] == [22, 23, 26]


def test_sessions_are_counted_over_holidays() -> None:
    after = new_york(2025, 12, 1, 16)
    assert [session.day.day for session in last_sessions(3, after)] == [26, 28, 1]


def test_many_sessions_are_found() -> None:
    assert len(last_sessions(60, new_york(2026, 1, 26, 12))) == 60


def test_the_date_is_that_of_new_york() -> None:
    assert new_york_date(datetime(2026, 1, 27, 3, tzinfo=UTC)) == date(2026, 1, 26)


def test_a_date_beyond_the_calendar_is_refused() -> None:
    with pytest.raises(UsageError, match="outside the known exchange calendar"):
        is_session(date(2090, 1, 2))
