"""One rate limit over all processes and hosts: a clock in the database hands out moments to send at."""

from __future__ import annotations

import time
from datetime import timedelta

from include.mltrading.store.connection import Connection
from include.mltrading.store.queries import query


def wait_for_slot(connection: Connection, vendor: str, requests_per_second: float) -> None:
    """Reserve the next free moment and sleep until it comes.

    The reservation is committed before the sleep, so nobody waits on a lock.
    """
    row = connection.execute(
        query("reserve_request_slot"),
        {"vendor": vendor, "interval": timedelta(seconds=1 / requests_per_second)},
    ).fetchone()
    time.sleep(max(0.0, row[0]) if row else 0.0)
