"""Runs the ticks of a span again or for the first time, one after the other, and tells how they ended.

    python -m include.mltrading.airflow.backfill DAG_ID START END

Start and end, with a time zone, are the beginnings of the runs' intervals: the collection's tick of 10:00 is
that of the interval which began at 9:00. Runs that succeeded are left alone, failed ones are repeated. Ends
with 0 when every run of the span is green.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from include.mltrading.airflow.compat import of_this_major
from include.mltrading.configuration.deployments import COLLECTION, FEATURES
from include.mltrading.errors import MLTradingError, UsageError
from include.mltrading.pipeline.window import parse_instant


def backfill(dag_id: str, start: str, end: str) -> int:
    """0 when all runs of the span are green, else 1, naming the others. Raises MLTradingError."""
    first, last = parse_instant(start, "start"), parse_instant(end, "end")
    if first > last:
        raise UsageError(f"start {start} is after end {end}: give the earlier one first")
    states = of_this_major("backfill").run_ticks(dag_id, first, last)
    red = [run_id for run_id, state in states.items() if state != "success"]
    for run_id in red:
        print(f"not green: {run_id}")
    return 1 if red else 0


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m include.mltrading.airflow.backfill",
        description="Run the ticks of a span, one after the other, and wait for their end.",
    )
    parser.add_argument(
        "dag_id", choices=[COLLECTION, FEATURES], metavar="DAG_ID", help="a DAG with a schedule"
    )
    parser.add_argument("start", help="beginning of the first interval, such as 2026-11-20T09:00-05:00")
    parser.add_argument("end", help="beginning of the last interval")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 2 = bad input."""
    options = parser().parse_args(arguments)
    try:
        return backfill(options.dag_id, options.start, options.end)
    except MLTradingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
