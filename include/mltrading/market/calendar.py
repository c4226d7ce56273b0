"""Sessions of the New York Stock Exchange and the hourly grid of its bars.

Holidays, half days and daylight saving come from exchange_calendars (XNYS). Hourly bars start at the
open, 09:30 New York, and follow each hour; the last one ends at the close: 7 bars on a full session,
of which the last lasts 30 minutes, and 4 on a half day.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

from include.mltrading.errors import UsageError

if TYPE_CHECKING:
    from exchange_calendars import ExchangeCalendar

NEW_YORK = ZoneInfo("America/New_York")
BAR = timedelta(hours=1)


class Session(NamedTuple):
    """One trading day: its New York date, open and close (UTC)."""

    day: date
    open: datetime
    close: datetime


def preload() -> None:
    """Load the calendar now: a process that forks pays for it once."""
    _calendar()


def new_york_date(instant: datetime) -> date:
    """The calendar date in New York at an instant."""
    return instant.astimezone(NEW_YORK).date()


def is_session(day: date) -> bool:
    """Whether the exchange opens on the date. Raises UsageError beyond the calendar's range."""
    return bool(sessions_between(day, day))


def sessions_between(first: date, last: date) -> list[Session]:
    """The sessions from `first` to `last`, both included. Raises UsageError beyond the calendar's range."""
    calendar = _calendar()
    if first < calendar.first_session.date() or last > calendar.last_session.date():
        raise UsageError(
            f"{first} to {last} is outside the known exchange calendar "
            f"({calendar.first_session.date()} to {calendar.last_session.date()})"
        )
    table = calendar.schedule.loc[str(first) : str(last), ["open", "close"]]
    return [
        Session(row.Index.date(), row.open.to_pydatetime(), row.close.to_pydatetime())
        for row in table.itertuples()
    ]


def last_sessions(count: int, before: datetime) -> list[Session]:
    """The last `count` sessions that opened before an instant, oldest first.

    Before the open, today's session does not count yet.
    """
    last = new_york_date(before)
    # Holidays never take more than half of the days of a week; two more weeks cover the shortest counts.
    sessions = sessions_between(last - timedelta(days=2 * count + 14), last)
    return [session for session in sessions if session.open < before][-count:]


def bars_of(session: Session) -> list[tuple[datetime, datetime]]:
    """Start and end (UTC) of each hourly bar of a session."""
    starts = []
    start = session.open
    while start < session.close:
        starts.append((start, min(start + BAR, session.close)))
        start += BAR
    return starts


def grid(start: datetime, end: datetime) -> dict[datetime, datetime]:
    """The exchange's bars that start in [start, end): bar start -> bar end, both UTC, in time order."""
    return {
        bar_start: bar_end
        for session in sessions_between(new_york_date(start), new_york_date(end))
        for bar_start, bar_end in bars_of(session)
        if start <= bar_start < end
    }


def market_time_ago(duration: timedelta, before: datetime) -> datetime:
    """The instant from which to `before` the exchange was open for the duration in all."""
    left = duration
    for session in reversed(last_sessions(math.ceil(duration / timedelta(hours=3)) + 1, before)):
        close = min(session.close, before)
        if close - session.open >= left:
            return close - left
        left -= close - session.open
    raise UsageError(f"{duration} of market time is more than the exchange calendar was asked for")


def is_trading_time(instant: datetime, after_close: timedelta) -> bool:
    """Whether the exchange is open, or closed no longer than that ago."""
    session = last_sessions(1, instant)[0]
    return session.open <= instant <= session.close + after_close


@cache
def _calendar() -> ExchangeCalendar:
    import exchange_calendars  # costs half a second; the features child never needs it

    # One year ahead is the library's default; 2005 is far before any hourly bar the vendor serves.
    return exchange_calendars.get_calendar(
        "XNYS", start="2005-01-03", end=(datetime.now(UTC) + timedelta(days=365)).date().isoformat()
    )
