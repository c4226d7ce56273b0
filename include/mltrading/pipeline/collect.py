"""Collect one symbol's bars: ask the vendor, screen the reply, store it in one transaction."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import MLTradingError, NoBarsError, UsageError
from include.mltrading.market.bars import Bar, RefusedBar, hours_without_trade, screen
from include.mltrading.market.basis import NEARBY
from include.mltrading.market.calendar import (
    grid,
    last_sessions,
    new_york_date,
    served_bars,
    sessions_between,
)
from include.mltrading.market.identity import FIRST_TRADE_TOLERANCE, require_same_company, too_few_agree
from include.mltrading.market.splits import Adjustment, reconcile
from include.mltrading.market.trust import judge, require_trading_hours
from include.mltrading.market.yahoo import VendorReply
from include.mltrading.pipeline.quality import missing_bars
from include.mltrading.pipeline.run import Run
from include.mltrading.pipeline.steps import COLLECT
from include.mltrading.pipeline.vendor import REQUEST_SECONDS, Vendor
from include.mltrading.pipeline.window import HEALED_SESSIONS, Window, earliest
from include.mltrading.store import ledger, market_data
from include.mltrading.store.connection import Connection, connect
from include.mltrading.store.request_clock import ON_DEMAND

# One symbol may take so long, waiting for its turn included: the mapped task's execution_timeout of ten
# minutes, less its start and end.
FETCH_SECONDS = 570
# What a symbol needs after its last wait: a request that times out, and storing.
RESERVE_SECONDS = REQUEST_SECONDS + 10

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Collection:
    """What to collect and under which run.

    finality_delay: added to a bar's end before it counts as final. priority: at the rate limit, see
    `request_clock`. ends_at: time.monotonic() at which the whole task ends. retry_seconds: see `Vendor`.
    """

    settings: Settings
    run: Run
    window: Window
    finality_delay: timedelta
    priority: int = ON_DEMAND
    ends_at: float = float("inf")
    retry_seconds: float = 4.0

    def __call__(self, symbol: str, started: Callable[[], None]) -> int:
        """Collect one symbol; returns the rows written.

        Raises YahooError when the vendor does not deliver, NoBarsError when it delivers none of the bars
        that the exchange had in the window, PostponedError when the rate limit lasts longer than the task,
        OtherHistoryError when it serves another company's bars, UsageError when the database holds another
        source's data or the window's bars were archived.
        """
        begun = datetime.now(UTC)
        with connect(self.settings) as connection:
            started()
            start = self._first_instant(connection, symbol)
            end = self.window.end
            deadline = min(self.ends_at, time.monotonic() + FETCH_SECONDS) - RESERVE_SECONDS
            vendor = Vendor(connection, self.settings, self.priority, deadline, self.retry_seconds)
            wide = False
            served: list[Bar] | None = None  # what the vendor has of the hours of doubtful bars
            reply = self.fetch(vendor, symbol, start)
            while True:
                good, refused = self._screened(connection, reply, start)
                with connection.transaction():
                    market_data.lock_symbol(connection, symbol)
                    _require_not_archived(connection, symbol, start)
                    stored = market_data.final_bars(connection, symbol, start, end)
                    doubtful = self._doubtful(connection, reply, good, stored)
                    if not doubtful or served is not None:
                        if doubtful:
                            require_same_company(
                                symbol, doubtful, served or [], reply.first_trade, reply.splits
                            )
                        adjustment = _reconciled(connection, reply, good, stored, start)
                        oldest = market_data.oldest_bar(connection, symbol)
                        # History moves to a new basis: what the vendor serves of it is better than what we
                        # scale.
                        if wide or not adjustment.moves_table or oldest is None or oldest >= start:
                            written = self._store(connection, reply, good, refused, adjustment, stored, start)
                            ledger.finish(connection, self.run.attempt(COLLECT), symbol, begun, written.bars)
                            break
                        start, wide = self.window.widened(oldest), True
                if doubtful and served is None:
                    served = self._served(vendor, symbol, doubtful)
                else:
                    reply = self.fetch(vendor, symbol, start)
        log.info(
            "%s: %d bars from %s to %s, %d written, %d revised",
            symbol, len(good), f"{start:%Y-%m-%d %H:%M}", f"{end:%Y-%m-%d %H:%M}",
            written.bars, written.revised,
        )  # fmt: skip
        return written.bars

    def fetch(self, vendor: Vendor, symbol: str, start: datetime) -> VendorReply:
        """What the vendor serves from `start` to the window's end; raises what `Vendor.fetch` does."""
        reply = vendor.fetch(symbol, self.window.asked_from(start), self.window.end)
        return replace(reply, bars=[bar for bar in reply.bars if bar.timestamp >= start])

    def _first_instant(self, connection: Connection, symbol: str) -> datetime:
        """Where the symbol's window starts: a scheduled one reaches back to bars that are still missing."""
        newest = market_data.last_final_bar(connection, symbol)
        start = self.window.first_instant(newest)
        archived = market_data.archived_before(connection, symbol)
        if archived is not None and start < archived:
            if self.window.end <= archived:
                raise UsageError(
                    f"{symbol}: its bars before {archived:%Y-%m-%d} were archived, and the window ends "
                    "before that: `python -m include.mltrading archive --import` brings them back"
                )
            log.warning("%s: bars before %s were archived and are left alone", symbol, f"{archived:%Y-%m-%d}")
            return archived
        if self.window.sessions is None or newest is None:
            return start
        last_served = ledger.last_served(connection, self.run.dag_id, COLLECT, symbol, self.window.end)
        holes = missing_bars(
            connection, [symbol], self.window.end,
            sessions=self.window.healed(last_served), finality_delay=self.finality_delay, quiet_too=True,
        )  # fmt: skip
        # One request serves any window; what the vendor no longer serves, or was archived, is out of reach.
        reachable = max(earliest(), archived) if archived is not None else earliest()
        opens = (sessions_between(hole.day, hole.day)[0].open for hole in holes)
        starts = [start, *[instant for instant in opens if instant >= reachable][:1]]
        undecided = market_data.undecided_split(connection, symbol)
        healed = last_sessions(HEALED_SESSIONS, self.window.end)
        if undecided is not None and undecided > healed[0].day:
            # Whether the vendor has restated what came before it shows only in bars of before it, and of
            # before the days on which it may have been traded instead.
            earlier = sessions_between(undecided - 2 * NEARBY, undecided - NEARBY)
            starts.append(max(earlier[-1].open, reachable))
        return min(starts)

    def _doubtful(
        self, connection: Connection, reply: VendorReply, good: list[tuple[Bar, bool]], stored: list[Bar]
    ) -> list[Bar]:
        """Stored bars of which the reply leaves open whether they are the same company's; mostly none."""
        symbol = reply.symbol
        if reply.first_trade is not None:
            first = reply.first_trade - FIRST_TRADE_TOLERANCE
            if before := market_data.newest_before(connection, symbol, first):
                return before
        if not too_few_agree([bar for bar, is_final in good if is_final], stored):
            return []
        reach = self.window.widened(stored[0].timestamp)
        return [bar for bar in stored if bar.timestamp >= reach]

    def _served(self, vendor: Vendor, symbol: str, doubtful: list[Bar]) -> list[Bar]:
        """What the vendor has of the hours of stored bars."""
        start, end = self.window.widened(doubtful[0].timestamp), doubtful[-1].timestamp + timedelta(hours=1)
        try:
            return vendor.fetch(symbol, start, end).bars if start < end else []
        except NoBarsError:
            return []

    def _screened(
        self, connection: Connection, reply: VendorReply, start: datetime
    ) -> tuple[list[tuple[Bar, bool]], list[RefusedBar]]:
        """The reply's bars by themselves: good ones, each with whether it is final, and refused ones.

        Raises NoBarsError where none of them is usable; the refused ones are in quarantine then.
        """
        # A window may reach into the future; a bar that is still running is not final for that.
        final_until = min(self.window.end, datetime.now(UTC)) - self.finality_delay
        hours = grid(start, self.window.end)
        require_trading_hours(reply.symbol, reply.bars, hours)
        good, refused = screen(reply.bars, hours, final_until)
        if not any(is_final for _, is_final in good) and any(
            bar_end <= final_until for _, bar_end in served_bars(start, self.window.end)
        ):
            with connection.transaction():
                market_data.lock_symbol(connection, reply.symbol)
                market_data.claim_source(connection, reply.source)
                market_data.quarantine(
                    connection, reply.symbol, refused, correlation_id=self.run.correlation_id
                )
            raise NoBarsError(
                f"{reply.symbol}: of the bars that the exchange had from {start:%Y-%m-%d %H:%M} to "
                f"{self.window.end:%Y-%m-%d %H:%M} UTC, Yahoo served none that is usable ({len(refused)} "
                "refused); the next run asks again"
            )
        if not self.run.is_live():
            good = [(bar, is_final) for bar, is_final in good if is_final]
        return good, refused

    def _store(
        self,
        connection: Connection,
        reply: VendorReply,
        good: list[tuple[Bar, bool]],
        refused: list[RefusedBar],
        adjustment: Adjustment,
        stored: list[Bar],
        start: datetime,
    ) -> market_data.Written:
        """Everything that the reply changes, in the caller's transaction and under the symbol's lock."""
        symbol, run_id = reply.symbol, self.run.correlation_id
        market_data.claim_source(connection, reply.source)
        restated = self._record_splits(connection, symbol, adjustment)
        if restated:
            stored = market_data.final_bars(connection, symbol, start, self.window.end)
        judged = judge(
            adjustment.rebased(good),
            [bar for bar in stored if bar.timestamp not in adjustment.mistaken],
            market_data.released_bars(connection, symbol),
        )
        retracted = market_data.retract_bars(connection, symbol, judged.untrue, correlation_id=run_id)
        written = market_data.upsert_bars(
            connection, symbol, judged.good, source=reply.source, correlation_id=run_id
        )
        all_refused = refused + judged.refused
        market_data.quarantine(connection, symbol, all_refused, correlation_id=run_id)
        refused_now = {bar.timestamp for bar, _ in all_refused}
        came_right = market_data.confirm_bars(
            connection, symbol, [bar.timestamp for bar, _ in judged.good if bar.timestamp not in refused_now]
        )
        if came_right:
            log.info("%s: %d bars that were in quarantine came right", symbol, came_right)
        self._record_dividends(connection, reply, adjustment, start)
        market_data.record_quiet_hours(
            connection, symbol, hours_without_trade(reply.bars, grid(start, self.window.end))
        )
        for bar, reason in all_refused:
            log.warning(
                "%s: the bar of %s was refused: %s", symbol, f"{bar.timestamp:%Y-%m-%d %H:%M}", reason
            )
        return market_data.Written(written.bars + retracted + restated, written.revised)

    def _record_splits(self, connection: Connection, symbol: str, adjustment: Adjustment) -> int:
        """Restate what is stored and put on record what was found; returns how many bars were restated."""
        restated = 0
        for found in adjustment.found:
            bars = market_data.record_split(connection, symbol, found, correlation_id=self.run.correlation_id)
            split = found.split
            if found.divide != 1:
                log.warning(
                    "%s: %s (%g for 1 on %s): %d stored bars divided by %g", symbol,
                    "a split is taken back" if found.ended else f"a split, by {found.evidence}",
                    split.ratio, split.ex_date, bars, found.divide,
                )  # fmt: skip
            elif not found.decided and not found.ended:
                log.warning(
                    "%s: whether its bars before %s stand on the basis after the split of %g for 1 cannot be "
                    "told yet; they stay as they are", symbol, split.ex_date, split.ratio,
                )  # fmt: skip
            restated += bars
        return restated

    def _record_dividends(
        self, connection: Connection, reply: VendorReply, adjustment: Adjustment, start: datetime
    ) -> None:
        """Within its window the reply's dividends are the truth: moved ones move, withdrawn ones go."""
        stored = market_data.dividends(connection, reply.symbol)
        amounts = {
            dividend.ex_date: adjustment.amount(dividend, stored.get(dividend.ex_date))
            for dividend in reply.dividends
        }
        first, last = _event_days(reply, start)
        gone = [day for day in stored if first <= day <= last and day not in amounts]
        market_data.record_dividends(
            connection, reply.symbol, amounts, gone, correlation_id=self.run.correlation_id
        )


def _require_not_archived(connection: Connection, symbol: str, start: datetime) -> None:
    """Raise MLTradingError when bars of the window were archived while the vendor was asked for them."""
    archived = market_data.archived_before(connection, symbol)
    if archived is not None and start < archived:
        raise MLTradingError(
            f"{symbol}: its bars before {archived:%Y-%m-%d} were archived while they were fetched; nothing "
            "was stored, run the task again"
        )


def _reconciled(
    connection: Connection,
    reply: VendorReply,
    good: list[tuple[Bar, bool]],
    stored: list[Bar],
    start: datetime,
) -> Adjustment:
    """On which split basis reply and table stand; call it under the symbol's lock."""
    return reconcile(
        reply.symbol,
        [bar for bar, _ in good],
        {bar.timestamp: bar for bar in stored},
        reply.splits,
        market_data.recorded_splits(connection, reply.symbol),
        _event_days(reply, start),
    )


def _event_days(reply: VendorReply, start: datetime) -> tuple[date, date]:
    """The first and the last day of whose events the reply would tell: an event is stamped with the open.

    None, where an event could not be read: it may be any of those on record.
    """
    if reply.events_lost:
        return date.max, date.min
    days = [new_york_date(bar.timestamp) for bar in reply.bars]
    first = new_york_date(start)
    opens = [session.open for session in sessions_between(first, first)]
    return (first if opens and start <= opens[0] else first + timedelta(days=1)), max(days, default=date.min)
