"""Which backups are kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from include.mltrading.pipeline.retention import Keep, kept_of

NEWEST = datetime(2026, 3, 11, 2, 30, tzinfo=UTC)  # a Wednesday
NIGHTS = [NEWEST - timedelta(days=days) for days in range(100)]


def test_seven_daily_and_four_weekly_of_a_hundred_nights() -> None:
    kept = kept_of(NIGHTS, Keep(7, 4))
    # This week's newest is today's, the weeks before end with their Sundays.
    sundays = [datetime(2026, 3, 8, 2, 30, tzinfo=UTC) - timedelta(weeks=weeks) for weeks in range(3)]
    assert kept == {*NIGHTS[:7], *sundays}


def test_of_several_backups_of_a_day_the_newest_is_kept() -> None:
    hours = [NEWEST + timedelta(hours=hour) for hour in range(20)]
    assert kept_of([*hours, *NIGHTS[1:]], Keep(2, 1)) == {hours[-1], NIGHTS[1]}


def test_days_and_weeks_without_a_backup_do_not_count() -> None:
    seldom = [NEWEST - timedelta(days=40 * number) for number in range(5)]
    assert kept_of(seldom, Keep(3, 2)) == set(seldom[:3])


def test_the_newest_is_kept_in_any_case() -> None:
    assert kept_of([NEWEST, *NIGHTS[1:]], Keep(0, 0)) == {NEWEST}
    assert kept_of([], Keep(7, 4)) == set()


def test_an_iso_week_goes_over_the_turn_of_the_year() -> None:
    days = [datetime(2025, 12, 29, tzinfo=UTC) + timedelta(days=number) for number in range(7)]
    assert kept_of(days, Keep(0, 2)) == {days[-1]}
