"""Which span of time a collection asks the vendor for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from include.mltrading.errors import UsageError
from include.mltrading.market.calendar import bar_before, last_sessions, new_york_date

# The vendor serves hourly bars for 730 days and answers 422 beyond; a day of margin for the clocks.
VENDOR_DAYS = 729
NEW_SYMBOL_DAYS = 366

# A bar that the vendor did not have is asked for again at every tick for so many sessions, at the first tick
# of a session for MOST_SESSIONS, of a week for a year, and of a month for as long as the vendor serves it.
HEALED_SESSIONS = 10
_WEEKLY_SESSIONS = 252
_SERVED_SESSIONS = 2 * _WEEKLY_SESSIONS
MOST_SESSIONS = 60
SESSIONS_PATTERN = r"^([1-9]|[1-5][0-9]|60)d$"
PERIODS = ("1mo", "2mo", "3mo", "6mo", "9mo", "1y", "18mo", "2y")
_DAYS_IN = {"mo": 30.5, "y": 365.25}
# A date of any other is a slip; those at the ends of time cannot even be converted to UTC.
_YEARS = range(1970, 2100)
_LONGEST_SHOWN = 80


@dataclass(frozen=True)
class Window:
    """A span of time that ends at `end`; exactly one of the others says where it starts.

    sessions: so many sessions, further back where a symbol has a gap, a year for a new symbol.
    start: from there. period: 1mo ... 2y before the end.
    """

    end: datetime
    sessions: int | None = None
    start: datetime | None = None
    period: str | None = None

    def __post_init__(self) -> None:
        if self.period is not None:
            period_length(self.period)
        if self.start is not None and self.start >= self.end:
            raise UsageError(
                f"start {self.start.isoformat()} is not before end {self.end.isoformat()}: "
                "give an earlier start or a later end"
            )

    def first_instant(self, last_final_bar: datetime | None) -> datetime:
        """Where the window starts for a symbol whose newest final bar is given (None: it has none)."""
        self.require_served()
        if self.start is not None:
            start = self.start
        elif self.period is not None:
            start = self.end - period_length(self.period)
        else:
            start = last_sessions(self.sessions or 1, self.end)[0].open
            if last_final_bar is None:
                start = min(start, self.end - timedelta(days=NEW_SYMBOL_DAYS))
            else:
                start = min(start, last_final_bar)
        return max(start, earliest())

    def require_served(self) -> None:
        """Raise UsageError when the vendor serves nothing of it any more."""
        served_from = earliest()
        if self.end <= served_from:
            raise UsageError(
                f"the window ends on {self.end:%Y-%m-%d}, but the vendor serves hourly bars only from "
                f"{served_from:%Y-%m-%d} on: give a later end"
            )

    def healed(self, last_served: datetime | None) -> int:
        """So many sessions before its end a window looks for bars that are still missing.

        last_served: the end of the window before it that brought the symbol's bars, None = none did. Each
        looks at the last HEALED_SESSIONS; the first one of a session, a week and a month further back.
        """
        ends, before = (new_york_date(at) if at else None for at in (self.end, last_served))
        assert ends is not None  # noqa: S101 - the first of the two is given
        if before is None or (ends.year, ends.month) != (before.year, before.month):
            return _SERVED_SESSIONS
        if ends.isocalendar()[:2] != before.isocalendar()[:2]:
            return _WEEKLY_SESSIONS
        return HEALED_SESSIONS if ends == before else MOST_SESSIONS

    def asked_from(self, start: datetime) -> datetime:
        """Where a request for bars from `start` on begins: a bar earlier, for a range's first bar may come
        without its volume."""
        return max(bar_before(start), min(start, earliest()))

    def widened(self, oldest_bar: datetime) -> datetime:
        """Where a window starts that takes in all stored bars which the vendor still serves."""
        return max(oldest_bar, earliest())


def earliest() -> datetime:
    """The first instant of which the vendor serves hourly bars."""
    return datetime.now(UTC) - timedelta(days=VENDOR_DAYS)


def on_demand_window(params: Mapping[str, Any], run_end: datetime) -> Window:
    """The window of an on-demand load: from `start`, or a `period`, up to `end` or the run's own end.

    params: `start`, `end` (ISO, None = not given) and `period` (default 1y). Raises UsageError.
    """
    start, end, period = (params.get(name) or None for name in ("start", "end", "period"))
    until = min(parse_instant(end, "end"), run_end) if end else run_end
    if start:
        return Window(until, start=parse_instant(start, "start"))
    return Window(until, period=period or "1y")


def period_length(period: str) -> timedelta:
    """The length of 1mo ... 2y. Raises UsageError for any other text."""
    if period not in PERIODS:
        raise UsageError(f"period {period!r}: give one of {', '.join(PERIODS)}")
    match = re.fullmatch(r"(\d+)(mo|y)", period)
    assert match is not None  # noqa: S101 - PERIODS holds only such
    return timedelta(days=int(match[1]) * _DAYS_IN[match[2]])


def sessions_in(data_period: str) -> int:
    """The number of sessions in `3d`. Raises UsageError unless it is 1d ... 60d."""
    if not re.fullmatch(SESSIONS_PATTERN.strip("^$"), data_period):
        raise UsageError(f"data_period {data_period!r}: give 1d to 60d, counted in sessions")
    return int(data_period.removesuffix("d"))


def parse_instant(text: str, name: str) -> datetime:
    """An ISO date or time as UTC; without an offset it is UTC. Raises UsageError naming the argument."""
    shown = repr(text)[:_LONGEST_SHOWN]
    try:
        instant = datetime.fromisoformat(text.strip())
    except (ValueError, AttributeError):
        raise UsageError(
            f"{name} {shown}: give an ISO date or time, such as 2026-01-05 or 2026-01-05T14:30:00+00:00"
        ) from None
    if instant.year not in _YEARS:
        raise UsageError(f"{name} {shown}: give a date of the years {_YEARS[0]} to {_YEARS[-1]}")
    return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)
