from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from include.mltrading.errors import UsageError
from include.mltrading.market.calendar import NEW_YORK
from include.mltrading.pipeline.window import VENDOR_DAYS, Window, parse_instant, period_length, sessions_in

NOW = datetime.now(UTC)
TICK = datetime(2026, 1, 26, 10, tzinfo=NEW_YORK).astimezone(UTC)


def opened(day: int) -> datetime:
    return datetime(2026, 1, day, 9, 30, tzinfo=NEW_YORK)


def test_three_sessions_start_at_the_open_of_the_first() -> None:
    assert Window(TICK, sessions=3).first_instant(TICK) == opened(22)


def test_a_gap_is_closed_from_the_last_final_bar_on() -> None:
    last = datetime(2026, 1, 7, 20, 30, tzinfo=UTC)
    assert Window(TICK, sessions=3).first_instant(last) == last


def test_a_new_symbol_gets_a_year() -> None:
    assert Window(TICK, sessions=3).first_instant(None) == TICK - timedelta(days=366)


@pytest.mark.parametrize(
    ("last_served", "sessions"),
    [
        (datetime(2026, 1, 26, 9, tzinfo=NEW_YORK), 10),  # the second tick of a session
        (datetime(2026, 1, 25, 16, tzinfo=NEW_YORK), 252),  # of a week
        (datetime(2025, 12, 31, 16, tzinfo=NEW_YORK), 504),  # of a month
        (None, 504),
    ],
)
def test_the_older_a_missing_bar_the_more_seldom_it_is_asked_for(
    last_served: datetime | None, sessions: int
) -> None:
    assert Window(TICK, sessions=3).healed(last_served) == sessions
    assert Window(TICK + timedelta(days=1), sessions=3).healed(TICK) == 60


def test_a_given_start_or_period_is_kept_whatever_is_stored() -> None:
    start = datetime(2026, 1, 5, tzinfo=UTC)
    assert Window(TICK, start=start).first_instant(None) == start
    assert Window(TICK, period="1mo").first_instant(None) == TICK - timedelta(days=30.5)


def test_no_window_reaches_beyond_what_the_vendor_serves() -> None:
    before = datetime.now(UTC)
    first = Window(NOW, period="2y").first_instant(None)
    assert before <= first + timedelta(days=VENDOR_DAYS) <= datetime.now(UTC)


@pytest.mark.parametrize("span", [{"sessions": 3}, {"period": "2y"}])
@pytest.mark.parametrize("end", [NOW - timedelta(days=800), datetime(1, 1, 1, tzinfo=UTC)])
def test_a_window_wholly_beyond_it_is_refused(end: datetime, span: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="serves hourly bars only from"):
        Window(end, **span).first_instant(None)


def test_a_start_after_the_end_is_refused_naming_both() -> None:
    with pytest.raises(UsageError, match=r"start 2026-02-01.*end 2026-01-26"):
        Window(TICK, start=datetime(2026, 2, 1, tzinfo=UTC))


@pytest.mark.parametrize("text", ["0d", "61d", "3", "3 d", "d", "-1d", "3d\n", "1y"])
def test_a_data_period_is_one_to_sixty_sessions(text: str) -> None:
    with pytest.raises(UsageError, match="data_period"):
        sessions_in(text)


def test_data_periods_count_sessions() -> None:
    assert [sessions_in(text) for text in ("1d", "3d", "10d", "60d")] == [1, 3, 10, 60]


def test_periods_are_those_of_the_form() -> None:
    assert period_length("1y") == timedelta(days=365.25)
    with pytest.raises(UsageError, match="period '5y'"):
        period_length("5y")


def test_instants_without_an_offset_are_utc() -> None:
    assert parse_instant("2026-01-05", "start") == datetime(2026, 1, 5, tzinfo=UTC)
    assert parse_instant("2026-01-05T09:30:00-05:00", "start") == datetime(2026, 1, 5, 14, 30, tzinfo=UTC)
    with pytest.raises(UsageError, match="start 'yesterday'"):
        parse_instant("yesterday", "start")


@pytest.mark.parametrize(
    "text", ["0001-01-01T00:00+14:00", "9999-12-31T23:00-14:00", "1969-12-31", "2100-01-01"]
)
def test_a_year_that_nobody_means_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="years 1970 to 2099"):
        parse_instant(text, "start")


@pytest.mark.parametrize("text", ["99999-01-01", "", 20260105, None])
def test_what_is_no_date_is_refused(text: Any) -> None:
    with pytest.raises(UsageError, match=r"start .*give an ISO date"):
        parse_instant(text, "start")


def test_a_request_begins_a_bar_earlier_than_what_is_wanted_of_it() -> None:
    """The first bar of a requested range may come without its volume."""
    friday, monday = (datetime(2026, 1, day, 14, 30, tzinfo=UTC) for day in (2, 5))
    window = Window(monday + timedelta(hours=7), start=monday)
    assert window.asked_from(monday) == friday + timedelta(hours=6)
    assert window.asked_from(monday + timedelta(hours=1)) == monday
