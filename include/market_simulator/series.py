"""What the server is about to tell about one symbol, before it is put into Yahoo's JSON."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from include.market_simulator.prices import FIRST_YEAR, NEW_YORK, Bar


@dataclass(frozen=True)
class Series:
    """One symbol's answer: its bars and events in [start, end) as they stand at `now` (all UTC).

    first_trade: since when it says that the symbol trades; None where it does not say.
    splits: ex-date → new shares for one old. dividends: ex-date → US dollars a share.
    """

    symbol: str
    start: datetime
    end: datetime
    now: datetime
    bars: tuple[Bar, ...]
    splits: tuple[tuple[date, float], ...] = ()
    dividends: tuple[tuple[date, float], ...] = ()
    first_trade: datetime | None = datetime(FIRST_YEAR, 1, 2, 9, 30, tzinfo=NEW_YORK)
