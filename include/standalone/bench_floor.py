"""What the feature engine is measured against; arguments: URL TABLE SINCE SYMBOL...

(Not in the package bench: whose import would count as the floor's.)

One process and one connection, without isolation, locks or ledger. For each symbol it reads the bars,
computes the features with the same arithmetic and writes them by binary COPY, a transaction per symbol.

TABLE: an empty table like feature_engineered_data. SINCE: ISO time of the first bar to compute, "" = all.
"""

from __future__ import annotations

import sys
from datetime import datetime

import numpy as np
from psycopg import sql

from include.mltrading.configuration.settings import Settings
from include.mltrading.features.compute import compute
from include.mltrading.features.definitions import COLUMNS, FEATURE_VERSION, LOOKBACK_BARS
from include.mltrading.store.arrays import accept_arrays, as_start, copy_rows
from include.mltrading.store.connection import connect

_BARS = """
SELECT array_agg(timestamp), array_agg(ARRAY[open, high, low, close, volume::float8])
FROM (
    SELECT timestamp, open, high, low, close, volume
    FROM market_data
    WHERE symbol = %(symbol)s AND is_final AND timestamp >= coalesce(
        (
            SELECT timestamp FROM market_data
            WHERE symbol = %(symbol)s AND is_final AND timestamp < %(since)s
            ORDER BY timestamp DESC OFFSET %(lookback)s - 1 LIMIT 1
        ),
        '-infinity'
    )
    ORDER BY timestamp
) AS bars
"""


def main(url: str, table: str, since: str, *symbols: str) -> None:
    """Read, compute and write."""
    stale_from = datetime.fromisoformat(since) if since else None
    names = map(sql.Identifier, ("symbol", "timestamp", *COLUMNS, "feature_version"))
    copy = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
        sql.Identifier(table), sql.SQL(", ").join(names)
    )
    with connect(Settings(database_url=url)) as connection:
        accept_arrays(connection)
        cursor = connection.cursor(binary=True)
        for symbol in symbols:
            given = {"symbol": symbol, "since": stale_from, "lookback": LOOKBACK_BARS}
            [(starts, values)] = cursor.execute(_BARS, given).fetchall()
            bars = np.ascontiguousarray(values.T)
            first = 0 if stale_from is None else int(np.searchsorted(starts, as_start(stale_from)))
            with cursor.copy(copy) as rows:
                for piece in copy_rows(symbol, starts[first:], compute(*bars)[first:], FEATURE_VERSION):
                    rows.write(piece)


if __name__ == "__main__":
    main(*sys.argv[1:])
