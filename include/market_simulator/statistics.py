"""What was asked of the server: how often, how fast, how much at once."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any


class Statistics:
    """Counts of Yahoo's requests; control requests do not count. Safe between threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._running = 0
        self.reset()

    def reset(self) -> None:
        """Forget everything but the requests under way."""
        with self._lock:
            self._kinds: Counter[str] = Counter()
            self._symbols: Counter[str] = Counter()
            self._statuses: Counter[int] = Counter()
            self._recent: deque[float] = deque()
            self._peak_second = 0
            self._peak_running = self._running

    @contextmanager
    def request(self, kind: str, symbol: str | None) -> Iterator[None]:
        """Count a request that is under way while the block runs; `symbol` is counted for charts only."""
        arrived = time.monotonic()
        with self._lock:
            self._kinds[kind] += 1
            if kind == "chart" and symbol is not None:
                self._symbols[symbol] += 1
            self._recent.append(arrived)
            while self._recent[0] <= arrived - 1.0:
                self._recent.popleft()
            self._peak_second = max(self._peak_second, len(self._recent))
            self._running += 1
            self._peak_running = max(self._peak_running, self._running)
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1

    def answered(self, status: int) -> None:
        """Count an answer by its status, 0 for a reset."""
        with self._lock:
            self._statuses[status] += 1

    def snapshot(self) -> dict[str, Any]:
        """The counts: total, by kind, chart requests by symbol, answers by status, and the two peaks.

        peak_per_second: most arrivals within any one second. peak_concurrency: most requests at once.
        """
        with self._lock:
            return {
                "total": self._kinds.total(),
                "kinds": dict(self._kinds),
                "symbols": dict(self._symbols),
                "statuses": {str(status): count for status, count in self._statuses.items()},
                "peak_per_second": self._peak_second,
                "peak_concurrency": self._peak_running,
            }
