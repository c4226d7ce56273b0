"""The answer to "is it up?", in one word."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from include.mltrading.configuration.deployments import Deployments
from include.mltrading.monitor.freshness import stale_before
from include.mltrading.store.connection import Connection, read_only
from include.mltrading.store.queries import query

Word = Literal["up", "stale", "down"]


def health(connection: Connection, deployments: Deployments, symbols: Sequence[str], now: datetime) -> Word:
    """`up` while enough symbols (minimum_good_share of the YAML) are not stale in market time, else `stale`.

    A few symbols that the vendor has dropped for good do not take the whole down. Raises psycopg.Error.
    """
    with read_only(connection):
        row = connection.execute(
            query("monitor/monitor_current_symbols"),
            {"symbols": list(symbols), "since": stale_before(deployments, now)},
        ).fetchone()
    current = row[0] if row else 0
    return "up" if current >= deployments.pipeline.minimum_good_share * len(symbols) else "stale"
