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
from include.mltrading.features.definitions import COLUMNS, FEATURE_VERSION
from include.mltrading.store.arrays import as_start, copy_rows
from include.mltrading.store.connection import connect
from include.mltrading.store.feature_table import select_bars


def main(url: str, table: str, since: str, *symbols: str) -> None:
    """Read, compute and write."""
    stale_from = datetime.fromisoformat(since) if since else None
    names = map(sql.Identifier, ("symbol", "timestamp", *COLUMNS, "feature_version"))
    copy = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
        sql.Identifier(table), sql.SQL(", ").join(names)
    )
    with connect(Settings(database_url=url)) as connection, connection.cursor() as cursor:
        for symbol in symbols:
            starts, bars = select_bars(connection, symbol, stale_from)
            first = 0 if stale_from is None else int(np.searchsorted(starts, as_start(stale_from)))
            with cursor.copy(copy) as rows:
                for piece in copy_rows(symbol, starts[first:], compute(*bars)[first:], FEATURE_VERSION):
                    rows.write(piece)


if __name__ == "__main__":
    main(*sys.argv[1:])
