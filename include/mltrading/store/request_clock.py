"""One rate limit over all processes and hosts: a clock in the database hands out moments to send at.

Whoever waits stands in a queue: scheduled collection before what a person started, then first come, first
served. A refusal by the vendor (429, or denials in a row) moves the clock, so that everybody waits.
"""

from __future__ import annotations

import time
import uuid
from datetime import timedelta

from include.mltrading.errors import PostponedError
from include.mltrading.store.connection import Connection
from include.mltrading.store.queries import query

# Priorities: lower goes first.
SCHEDULED, ON_DEMAND = 1, 2

FIRST_PAUSE = timedelta(minutes=1)
# Who is denied is so for hours; the pause is longer than a task waits, so that none holds a slot meanwhile.
FIRST_PAUSE_WHEN_DENIED = timedelta(minutes=20)
DENIALS = 3  # in a row, from whichever symbols: then it is everybody that the vendor refuses
LONGEST_PAUSE = timedelta(hours=1)
_SHORTEST_PAUSE, _MOST_ASKED = 1.0, 86_400.0
# A slot is taken at most so long ahead: one that comes later is still open to a more urgent request.
_LOOKAHEAD = 0.1
_POLL = 0.05
# So long after it should have asked again a waiting process counts as dead.
_GRACE = 5.0


def wait_for_slot(
    connection: Connection,
    vendor: str,
    requests_per_second: float,
    *,
    priority: int = ON_DEMAND,
    deadline: float = float("inf"),
) -> None:
    """Wait until it is the caller's turn to send one request.

    deadline: time.monotonic() until which waiting makes sense. The turn is committed before the last sleep,
    so nobody waits on a lock. Raises PostponedError when the turn comes after the deadline.
    """
    me = {"waiter": uuid.uuid4(), "vendor": vendor}
    slot = {
        "interval": timedelta(seconds=1 / requests_per_second),
        "lookahead": timedelta(seconds=_LOOKAHEAD),
        **me,
    }
    try:
        while True:
            alive = timedelta(seconds=_GRACE)
            connection.execute(
                query("vendor/join_request_queue"), {**me, "priority": priority, "alive": alive}
            )
            # No row: somebody emptied the table this moment; the next round makes it anew.
            taken, due = connection.execute(query("vendor/take_request_slot"), slot).fetchone() or (None, 0.0)
            if taken is not None:
                break
            left = deadline - time.monotonic()
            if max(due, 0.0) > left:
                raise PostponedError(
                    f"{vendor} may be asked again in {max(due, 0.0):.0f} s, and this task has "
                    f"{max(left, 0.0):.0f} s left; run it again after that (Airflow does)"
                )
            nap = max(due - _LOOKAHEAD, _POLL)
            if nap > _POLL:
                # The queue forgets who sleeps unannounced.
                alive = timedelta(seconds=nap + _GRACE)
                connection.execute(
                    query("vendor/join_request_queue"), {**me, "priority": priority, "alive": alive}
                )
            time.sleep(nap)
    finally:
        connection.execute(query("vendor/leave_request_queue"), me)
    time.sleep(max(0.0, taken))


def pause(
    connection: Connection, vendor: str, retry_after: float | None, first: timedelta = FIRST_PAUSE
) -> float:
    """The vendor refused a request: nobody asks again for a while. Returns the seconds of the pause.

    retry_after: what the vendor asked for, in seconds; None: `first`, doubled up to an hour for each pause
    in a row.
    """
    asked = None
    if retry_after is not None:
        asked = timedelta(seconds=min(max(retry_after, _SHORTEST_PAUSE), _MOST_ASKED))
    row = connection.execute(
        query("vendor/pause_requests"),
        {"vendor": vendor, "asked": asked, "first": first, "longest": LONGEST_PAUSE},
    ).fetchone()
    return float(row[0]) if row else 0.0


def denied(connection: Connection, vendor: str) -> float:
    """The vendor denied one symbol's request for no reason of the symbol's. Returns the seconds of the pause
    that follows when it has done so DENIALS times in a row, else 0.
    """
    row = connection.execute(query("vendor/count_denial"), {"vendor": vendor}).fetchone()
    if row is None or row[0] < DENIALS:
        return 0.0
    return pause(connection, vendor, None, FIRST_PAUSE_WHEN_DENIED)


def welcome(connection: Connection, vendor: str) -> None:
    """The vendor answered: its next refusal counts as the first again."""
    connection.execute(query("vendor/requests_are_welcome"), {"vendor": vendor})
