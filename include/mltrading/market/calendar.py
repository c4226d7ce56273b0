"""Sessions of the New York Stock Exchange and the hourly grid of its bars.

Holidays, half days and daylight saving come from exchange_calendars (XNYS), what the exchange decides at
short notice from the deployments file. Hourly bars start at 09:30 New York and follow each hour; the last
one ends at the close: 7 bars on a full session, of which the last lasts 30 minutes. Of an hour that an
early close or a late opening cuts short the vendor has no bar: a half day has 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import UsageError

if TYPE_CHECKING:
    from exchange_calendars import ExchangeCalendar

    from include.mltrading.configuration.deployments import SpecialDay

NEW_YORK = ZoneInfo("America/New_York")
BAR = timedelta(hours=1)
OPEN, CLOSE = time(9, 30), time(16)  # of a session as planned


class Session(NamedTuple):
    """One trading day: its New York date, open and close (UTC)."""

    day: date
    open: datetime
    close: datetime


def preload() -> None:
    """Load the calendar now: a process that forks pays for it once."""
    _calendar()
    _changes()


def new_york_date(instant: datetime) -> date:
    """The calendar date in New York at an instant."""
    return instant.astimezone(NEW_YORK).date()


def is_session(day: date) -> bool:
    """Whether the exchange opens on the date. Raises UsageError beyond the calendar's range."""
    return bool(sessions_between(day, day))


def sessions_between(first: date, last: date) -> list[Session]:
    """The sessions from `first` to `last`, both included.

    Raises UsageError beyond the calendar's range, and where the deployments file is wrong.
    """
    sessions = planned_sessions(first, last)
    changes = _changes()
    return [kept for session in sessions if (kept := _changed(session, changes)) is not None]


def planned_sessions(first: date, last: date) -> list[Session]:
    """The sessions from `first` to `last`, both included, by the exchange's published calendar alone.

    Raises UsageError beyond the calendar's range.
    """
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
    """Start and end (UTC) of each hourly bar of a session that the vendor has."""
    return [
        (start, end)
        for start, end in _hours(session)
        if (start >= session.open and end - start == BAR) or end == _at(session.day, CLOSE)
    ]


def grid(start: datetime, end: datetime) -> dict[datetime, datetime]:
    """Where bars may start in [start, end): bar start -> bar end, both UTC, in time order.

    With the hours that an early close or a late opening cuts short, which are taken if they ever come.
    """
    return {
        bar_start: bar_end
        for session in sessions_between(new_york_date(start), new_york_date(end))
        for bar_start, bar_end in _hours(session)
        if start <= bar_start < end
    }


def served_bars(start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """Start and end of each bar that starts in [start, end) and that the vendor has, in time order."""
    return [
        bar
        for session in sessions_between(new_york_date(start), new_york_date(end))
        for bar in bars_of(session)
        if start <= bar[0] < end
    ]


def bar_before(instant: datetime) -> datetime:
    """Start of the last bar that started before an instant."""
    return next(
        start
        for session in _sessions_back(instant)
        for start, _ in reversed(bars_of(session))
        if start < instant
    )


def _hours(session: Session) -> list[tuple[datetime, datetime]]:
    """Start and end of each hour from 09:30 on that has a part in the session."""
    hours = []
    start = _at(session.day, OPEN)
    while start < session.close:
        if start + BAR > session.open:
            hours.append((start, min(start + BAR, session.close)))
        start += BAR
    return hours


def _at(day: date, hour: time) -> datetime:
    return datetime.combine(day, hour, NEW_YORK).astimezone(UTC)


def market_time_ago(duration: timedelta, before: datetime) -> datetime:
    """The instant from which to `before` the exchange was open for the duration in all."""
    left = duration
    for session in _sessions_back(before):
        close = min(session.close, before)
        if close - session.open >= left:
            return close - left
        left -= close - session.open
    raise UsageError(f"{duration} of market time is more than the exchange calendar was asked for")


def _sessions_back(before: datetime) -> Iterator[Session]:
    """The sessions that opened before an instant, the newest first, as far as it is known."""
    count, seen = 4, 0
    while len(sessions := last_sessions(count, before)) > seen:
        yield from reversed(sessions[: len(sessions) - seen])
        count, seen = 4 * count, len(sessions)


def is_trading_time(instant: datetime, after_close: timedelta) -> bool:
    """Whether the exchange is open, or closed no longer than that ago."""
    session = last_sessions(1, instant)[0]
    return session.open <= instant <= session.close + after_close


def _changed(session: Session, changes: Mapping[date, SpecialDay]) -> Session | None:
    """The session as the exchange held it; None where it stayed closed."""
    change = changes.get(session.day)
    if change is None:
        return session
    if change.closed:
        return None
    opens = _at(session.day, change.opens) if change.opens else session.open
    closes = _at(session.day, change.closes) if change.closes else session.close
    return Session(session.day, opens, closes) if opens < closes else None


def _changes() -> Mapping[date, SpecialDay]:
    """The days that the deployments file names: a correction of it counts at once, also in the web server."""
    file = Settings.read()[0].deployments_file
    try:
        changed_at = file.stat().st_mtime_ns
    except OSError:
        changed_at = 0  # reading it tells what is wrong
    return _changes_in(file, changed_at)


@lru_cache(maxsize=2)
def _changes_in(file: Path, changed_at: int) -> Mapping[date, SpecialDay]:
    from include.mltrading.configuration.deployments import (
        load_deployments,  # pydantic costs what no feature child needs
    )

    return {special.day: special for special in load_deployments(file).exchange.special_days}


@cache
def _calendar() -> ExchangeCalendar:
    import exchange_calendars  # costs half a second; the features child never needs it

    # One year ahead is the library's default; 2005 is far before any hourly bar the vendor serves.
    return exchange_calendars.get_calendar(
        "XNYS", start="2005-01-03", end=(datetime.now(UTC) + timedelta(days=365)).date().isoformat()
    )
