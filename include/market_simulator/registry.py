"""Which faults are active, for which requests and how often."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock
from typing import Any, Literal

from pydantic import PositiveInt, validate_call

from include.market_simulator.faults import REPLY_FAULTS, SERIES_FAULTS, ControlError
from include.market_simulator.messages import Reply, Series

Requests = Literal["chart", "probe", "cookie", "crumb", "any"]


@dataclass
class Fault:
    """One active fault. symbol None: every symbol. remaining None: until it is cleared."""

    kind: str
    requests: Requests = "chart"
    symbol: str | None = None
    remaining: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


class FaultRegistry:
    """The active faults, applied in the order in which they were added; safe between threads."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = Lock()

    @validate_call
    def add(
        self,
        kind: str,
        *,
        symbol: str | None = None,
        count: PositiveInt | None = None,
        requests: Requests = "chart",
        **options: Any,
    ) -> None:
        """Activate a fault. Raises ControlError or ValidationError that name what is wrong with it."""
        if kind not in SERIES_FAULTS | REPLY_FAULTS:
            raise ControlError(f"no fault {kind!r}: choose from {', '.join([*SERIES_FAULTS, *REPLY_FAULTS])}")
        fault = Fault(kind, requests, symbol.upper() if symbol else None, count, options)
        # Tried out, or a wrong option would be told to whoever asks for bars.
        now = datetime(2025, 1, 2, 17, tzinfo=UTC)
        change_series(Series("A", now, now, now, ()), [fault])
        change_reply(Reply(200, b""), [fault])
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Remove every fault."""
        with self._lock:
            self._faults.clear()

    def take(self, request: str, symbol: str | None) -> list[Fault]:
        """The faults that hit this request, each counted down by one."""
        with self._lock:
            hit = [
                fault
                for fault in self._faults
                if fault.requests in (request, "any") and fault.symbol in (None, symbol)
            ]
            for fault in hit:
                if fault.remaining is not None:
                    fault.remaining -= 1
            self._faults = [fault for fault in self._faults if fault.remaining != 0]
            return hit


def change_series(series: Series, faults: list[Fault]) -> Series:
    """`series` after all the faults that concern it."""
    for fault in faults:
        if fault.kind in SERIES_FAULTS:
            series = SERIES_FAULTS[fault.kind](series, **fault.options)
    return series


def change_reply(reply: Reply, faults: list[Fault]) -> Reply:
    """`reply` after all the faults that concern it."""
    for fault in faults:
        if fault.kind in REPLY_FAULTS:
            reply = REPLY_FAULTS[fault.kind](reply, **fault.options)
    return reply
