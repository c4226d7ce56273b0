"""Replace a symbol's stored history by the vendor's, all in one transaction.

For a ticker that was given to another company, and for stored bars that turned out wrong as a whole. What was
stored is kept, in bar_revisions and corporate_action_history, so that the table can be led back.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from include.mltrading.errors import NoBarsError
from include.mltrading.market.bars import Bar, hours_without_trade
from include.mltrading.market.calendar import BAR, new_york_date, served_bars, sessions_between
from include.mltrading.market.splits import reconcile
from include.mltrading.market.yahoo import VendorReply
from include.mltrading.pipeline.collect import FETCH_SECONDS, RESERVE_SECONDS, Collection
from include.mltrading.pipeline.steps import RELOAD
from include.mltrading.pipeline.vendor import Vendor
from include.mltrading.store import ledger, market_data
from include.mltrading.store.connection import connect

# So many sessions at either end, and one in so many of all, may lack: halts. Of the hours of those that are
# served, one in so many may: hours without a trade of which the vendor has no row.
_MOST_AT_AN_END = 3
_ONE_IN = 10
_ONE_HOUR_IN = 4

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reload(Collection):
    """A collection that takes the place of all that is stored, older bars than the window's too."""

    def __call__(self, symbol: str, started: Callable[[], None]) -> int:
        """Reload one symbol; returns the bars written and put away.

        Raises YahooError when the vendor does not deliver, NoBarsError when its bars do not fill the window,
        PostponedError when the rate limit lasts too long, MixedSourcesError when the database holds another
        source's data. Nothing has changed then.
        """
        begun = datetime.now(UTC)
        with connect(self.settings) as connection:
            started()
            start = self.window.first_instant(None)
            deadline = min(self.ends_at, time.monotonic() + FETCH_SECONDS) - RESERVE_SECONDS
            vendor = Vendor(connection, self.settings, self.priority, deadline, self.retry_seconds)
            reply = self.fetch(vendor, symbol, start)
            good, refused = self._screened(connection, reply, start)
            final = [bar for bar, is_final in good if is_final]
            _require_filled(reply, final, start, self.window.end)
            # Nothing stored to compare with: only the reply itself tells on which basis its bars stand.
            adjustment = reconcile(symbol, [bar for bar, _ in good], {}, reply.splits, [])
            wanted = {bar.timestamp: bar for bar, _ in adjustment.rebased(good)}
            run_id = self.run.correlation_id
            with connection.transaction():
                market_data.lock_symbol(connection, symbol)
                outdated = [
                    bar.timestamp
                    for bar in market_data.all_bars(connection, symbol)
                    if not _is_same(bar, wanted.get(bar.timestamp))
                ]
                away = market_data.retract_bars(connection, symbol, outdated, correlation_id=run_id)
                actions = [(split.ex_date, "split", split.ratio) for split in reply.splits]
                actions += [(paid.ex_date, "dividend", paid.amount) for paid in reply.dividends]
                market_data.end_actions(connection, symbol, actions, correlation_id=run_id)
                market_data.take_back_releases(connection, symbol)
                stored = market_data.final_bars(connection, symbol, start, self.window.end)
                written = self._store(connection, reply, good, refused, adjustment, stored, start)
                market_data.forget_archive(connection, symbol)
                ledger.finish(connection, self.run.attempt(RELOAD), symbol, begun, away + written.bars)
        log.info("%s: %d stored bars put away, %d written", symbol, away, written.bars)
        return away + written.bars


def _require_filled(reply: VendorReply, final: Sequence[Bar], start: datetime, end: datetime) -> None:
    """Raise NoBarsError unless the final bars fill the window, from the symbol's first day of trading on."""
    first = start
    # A first trade after bars that are served is not to be believed.
    if reply.first_trade is not None and final and reply.first_trade <= final[0].timestamp + BAR:
        first = max(start, reply.first_trade)
    until = min(end, datetime.now(UTC))
    days = [
        session.day
        for session in sessions_between(new_york_date(first), new_york_date(until))
        if session.open >= start and session.close <= until
    ]
    served = {new_york_date(bar.timestamp) for bar in final}
    lacking = [day for day in days if day not in served]
    hours = [
        start for start, end in served_bars(start, until) if new_york_date(start) in served and end <= until
    ]
    had = {bar.timestamp for bar in final} | set(hours_without_trade(reply.bars, dict.fromkeys(hours, until)))
    absent = sum(hour not in had for hour in hours)
    at_an_end = min(_MOST_AT_AN_END, len(days) // 4)
    if (
        not served
        or _leading(days, served) > at_an_end
        or _leading(days[::-1], served) > at_an_end
        or len(lacking) > at_an_end + len(days) // _ONE_IN
        or absent > len(hours) // _ONE_HOUR_IN
    ):
        what = (
            f"bars from {min(served)} to {max(served)}, none in {len(lacking)} of the window's {len(days)} "
            f"sessions, and not {absent} of the {len(hours)} hours of the others"
            if served
            else "no final bar"
        )
        raise NoBarsError(
            f"{reply.symbol}: Yahoo does not fill the window from {first:%Y-%m-%d} to {until:%Y-%m-%d}, it "
            f"serves {what}; nothing was changed: give a --period that it fills, or try again later"
        )


def _is_same(mine: Bar, theirs: Bar | None) -> bool:
    """Whether a stored bar is the vendor's, whose prices are single precision."""
    return (
        theirs is not None
        and mine.volume == theirs.volume
        and all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(mine[1:5], theirs[1:5], strict=True))
    )


def _leading(days: Sequence[date], served: set[date]) -> int:
    """How many of the days pass before the first one that was served."""
    return next((number for number, day in enumerate(days) if day in served), len(days))
