"""A limit on the rate of requests, as a vendor enforces it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from threading import Lock


class RateLimit:
    """Lets `per_second` requests through on average, and two at once after a pause. Safe between threads.

    The generic cell rate algorithm of ITU-T I.371, as vendors' gateways use it. clock: seconds, never going
    back.
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1 / per_second
        self._clock = clock
        self._due = -math.inf
        self._lock = Lock()

    def lets_through(self) -> bool:
        """Whether a request that arrives now is within the limit; one that is refused does not count."""
        with self._lock:
            now = self._clock()
            if now < self._due - self._interval:
                return False
            self._due = max(now, self._due) + self._interval
            return True
