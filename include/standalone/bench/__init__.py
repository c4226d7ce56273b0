"""`make bench`: the feature engine on 100 symbols with a year of hourly bars, database to database.

Everything is local: the embedded PostgreSQL, a database of its own, bars from the market simulator. The
numbers go to bench.json. What counts is the computation of all features of all symbols, each symbol in an
isolated process; the guide's target for that is 3 seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from include.standalone import airflow
from include.standalone.stack import Stack
from include.standalone.state import PROJECT

DATABASE = "mltrading_bench"
RUNS = 3


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write the result; 0 when every command succeeded."""
    parser = argparse.ArgumentParser(prog="python -m include.standalone bench", description=__doc__)
    parser.add_argument("--output", type=Path, default=PROJECT / "bench.json", help="default: %(default)s")
    options = parser.parse_args(arguments)
    # The bars of a bench never belong in a database of the user's.
    os.environ.pop("MLTRADING_DATABASE_URL", None)
    with Stack(market_database=DATABASE) as stack:
        url = stack.start_database()
        stack.export("MLTRADING_YAHOO_URL", stack.start_simulator())
        # The simulator has no rate to keep to.
        stack.export("MLTRADING_YAHOO_REQUESTS_PER_SECOND", "1000")
        stack.run("-m", "include.mltrading", "migrate")
        print("loading a year of bars")
        loaded = _seconds(stack, "collect", "--period", "1y")
        full = [_seconds(stack, "features", "--full") for _ in range(RUNS)]
        nothing_new = _seconds(stack, "features")
        with psycopg.connect(url) as connection:
            row = connection.execute(
                "SELECT (SELECT count(DISTINCT symbol) FROM market_data),"
                " (SELECT count(*) FROM market_data), (SELECT count(*) FROM feature_engineered_data)"
            ).fetchone()
    symbols, bars, features = row or (0, 0, 0)
    result = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "symbols": symbols,
        "bars": bars,
        "feature_rows": features,
        "seconds": {
            "collect one year": loaded,
            "features, all rows (each run)": full,
            "features, nothing new": nothing_new,
        },
    }
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{symbols} symbols, {bars} bars, {features} feature rows; including each command's start-up:")
    print(f"  collect one year       {loaded:7.2f} s")
    print(f"  features, all rows     {min(full):7.2f} s (best of {RUNS})")
    print(f"  features, nothing new  {nothing_new:7.2f} s")
    print(f"written to {options.output}")
    return 0


def _seconds(stack: Stack, *command: str) -> float:
    begun = time.monotonic()
    airflow.run(stack.environment, "-m", "include.mltrading", *command)
    return round(time.monotonic() - begun, 3)
