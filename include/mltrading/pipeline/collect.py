"""Collect one symbol's bars: ask the vendor, screen the reply, store it in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from include.mltrading.errors import NoBarsError
from include.mltrading.market import yahoo
from include.mltrading.market.bars import screen
from include.mltrading.market.calendar import grid
from include.mltrading.pipeline.run import Run
from include.mltrading.pipeline.steps import COLLECT
from include.mltrading.pipeline.window import Window
from include.mltrading.settings import Settings
from include.mltrading.store import ledger, market_data
from include.mltrading.store.connection import connect
from include.mltrading.store.request_clock import wait_for_slot

VENDOR = "yahoo"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Collection:
    """What to collect and under which run. finality_delay: added to a bar's end before it counts as final."""

    settings: Settings
    run: Run
    window: Window
    finality_delay: timedelta

    def __call__(self, symbol: str, started: Callable[[], None]) -> int:
        """Collect one symbol; returns the rows written.

        Raises YahooError when the vendor does not deliver, NoBarsError when it delivers none of the bars
        that the exchange had in the window, UsageError when the database holds another source's data.
        """
        begun = datetime.now(UTC)
        with connect(self.settings) as connection:
            started()
            start = self.window.first_instant(market_data.last_final_bar(connection, symbol))
            end = self.window.end
            reply = yahoo.fetch_hourly(
                symbol,
                start,
                end,
                base_url=self.settings.yahoo_url,
                before_request=partial(
                    wait_for_slot, connection, VENDOR, self.settings.yahoo_requests_per_second
                ),
            )
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
