"""Collect one symbol's bars: ask the vendor, screen the reply, store it in one transaction."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from include.mltrading.errors import NoBarsError
from include.mltrading.market.bars import screen
from include.mltrading.market.calendar import grid
from include.mltrading.pipeline.run import Run
from include.mltrading.pipeline.steps import COLLECT
from include.mltrading.pipeline.vendor import REQUEST_SECONDS, Vendor
from include.mltrading.pipeline.window import Window
from include.mltrading.settings import Settings
from include.mltrading.store import ledger, market_data
from include.mltrading.store.connection import connect
from include.mltrading.store.request_clock import ON_DEMAND

# One symbol may take so long, waiting for its turn included: the mapped task's execution_timeout of ten
# minutes, less its start and end.
FETCH_SECONDS = 570
# What a symbol needs after its last wait: a request that times out, and storing.
_RESERVE_SECONDS = REQUEST_SECONDS + 10

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
        UsageError when the database holds another source's data.
        """
        begun = datetime.now(UTC)
        with connect(self.settings) as connection:
            started()
            start = self.window.first_instant(market_data.last_final_bar(connection, symbol))
            end = self.window.end
            deadline = min(self.ends_at, time.monotonic() + FETCH_SECONDS) - _RESERVE_SECONDS
            vendor = Vendor(connection, self.settings, self.priority, deadline, self.retry_seconds)
            reply = vendor.fetch(symbol, start, end)
            expected = grid(start, end)
            final_until = end - self.finality_delay
            good, refused = screen(reply.bars, expected, final_until)
            if not any(is_final for _, is_final in good) and any(
                bar_end <= final_until for bar_end in expected.values()
            ):
                raise NoBarsError(
                    f"{symbol}: of the bars that the exchange had from {start:%Y-%m-%d %H:%M} to "
                    f"{end:%Y-%m-%d %H:%M} UTC, Yahoo served none that is usable ({len(refused)} refused); "
                    "the next run asks again"
                )
            if not self.run.is_live():
                good = [(bar, is_final) for bar, is_final in good if is_final]
            with connection.transaction():
                market_data.lock_symbol(connection, symbol)
                market_data.claim_source(connection, reply.source)
                written = market_data.upsert_bars(
                    connection, symbol, good, source=reply.source, correlation_id=self.run.correlation_id
                )
                market_data.quarantine(connection, symbol, refused, correlation_id=self.run.correlation_id)
                market_data.upsert_actions(
                    connection,
                    symbol,
                    [(split.ex_date, "split", split.ratio) for split in reply.splits]
                    + [(dividend.ex_date, "dividend", dividend.amount) for dividend in reply.dividends],
                )
                ledger.finish(connection, self.run.attempt(COLLECT), symbol, begun, written.bars)
        log.info(
            "%s: %d bars from %s to %s, %d written, %d revised, %d refused",
            symbol, len(good), f"{start:%Y-%m-%d %H:%M}", f"{end:%Y-%m-%d %H:%M}",
            written.bars, written.revised, len(refused),
        )  # fmt: skip
        return written.bars
