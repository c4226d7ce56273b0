"""Asking the vendor with manners: in turn, within the rate, again where that may help."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import (
    AccessDeniedError,
    MalformedReplyError,
    NoBarsError,
    PostponedError,
    RateLimitedError,
    SymbolMissingError,
    SymbolNotFoundError,
    YahooError,
    YahooUnreachableError,
)
from include.mltrading.market import yahoo
from include.mltrading.market.yahoo import VendorReply
from include.mltrading.store import market_data, request_clock
from include.mltrading.store.connection import Connection
from include.mltrading.store.vendor_session import SharedSession

VENDOR = "yahoo"
REQUEST_SECONDS = 30.0
_TRANSIENT_TRIES = 3
_REFUSALS = 5
# A symbol whose newest bar is not older than that is not gone because one answer says so.
_RECENT = timedelta(days=10)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Vendor:
    """The vendor as one symbol's process asks it.

    priority: see `request_clock`. deadline: time.monotonic() until which waiting makes sense.
    retry_seconds: the longest wait before the first repetition after a transient failure; then it doubles.
    """

    connection: Connection
    settings: Settings
    priority: int
    deadline: float
    retry_seconds: float

    def fetch(self, symbol: str, start: datetime, end: datetime) -> VendorReply:
        """The vendor's bars that start in [start, end).

        A 429 moves the clock that all processes share, and the symbol waits its turn again; denials in a row
        move it too, and fail. A transient failure, which includes a 404 for a symbol that has recent bars, is
        repeated after a random wait. Raises PostponedError when the wait would outlast the deadline,
        SymbolMissingError when that 404 stays, else what `yahoo.fetch_hourly` raises.
        """
        failures = refusals = 0
        while True:
            try:
                reply = self._ask(symbol, start, end)
            except RateLimitedError as error:
                seconds = request_clock.pause(self.connection, VENDOR, error.retry_after)
                log.warning("%s; nobody asks for %.0f s", error, seconds)
                refusals += 1
                if refusals == _REFUSALS:
                    raise PostponedError(f"{error}; refused {refusals} times in a row") from None
            except AccessDeniedError as error:
                seconds = request_clock.denied(self.connection, VENDOR)
                if seconds:
                    log.warning("%s; nobody asks for %.0f s", error, seconds)
                raise
            except (YahooUnreachableError, SymbolNotFoundError) as error:
                failure = self._transient(error, symbol, end)
                failures += 1
                # Full jitter: those who failed together do not come back together.
                nap = random.uniform(0, self.retry_seconds * 2 ** (failures - 1))  # noqa: S311 - no secret
                if failures == _TRANSIENT_TRIES or time.monotonic() + nap > self.deadline:
                    raise failure from None
                log.warning("%s; asking again in %.1f s", failure, nap)
                time.sleep(nap)
            except (NoBarsError, MalformedReplyError):
                request_clock.welcome(self.connection, VENDOR)
                raise
            else:
                request_clock.welcome(self.connection, VENDOR)
                return reply

    def _ask(self, symbol: str, start: datetime, end: datetime) -> VendorReply:
        """One fetch, whose requests wait their turn."""
        turn = partial(
            request_clock.wait_for_slot,
            self.connection,
            VENDOR,
            self.settings.yahoo_requests_per_second,
            priority=self.priority,
            deadline=self.deadline,
        )
        return yahoo.fetch_hourly(
            symbol,
            start,
            end,
            base_url=self.settings.yahoo_url,
            before_request=turn,
            request_timeout=REQUEST_SECONDS,
            sessions=SharedSession(self.connection, yahoo.server(self.settings.yahoo_url), self.deadline),
        )

    def _transient(self, error: YahooError, symbol: str, end: datetime) -> YahooError:
        """The failure as what it is when it stays; raises it where asking again cannot help."""
        if not isinstance(error, SymbolNotFoundError):
            return error
        request_clock.welcome(self.connection, VENDOR)
        newest = market_data.last_final_bar(self.connection, symbol)
        if newest is None or newest < min(end, datetime.now(UTC)) - _RECENT:
            raise error
        return SymbolMissingError(
            f"{symbol}: Yahoo says that it knows no such symbol, and has served its bars up to "
            f"{newest:%Y-%m-%d %H:%M} UTC; the next run asks again: look into it if it stays so"
        )
