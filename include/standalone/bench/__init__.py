"""`make bench`: how fast the system is, as one table and in bench.json.

Real PostgreSQL, invented bars, a database of its own; every ratio is to a floor measured in the same run.
The engine part takes about three minutes, the Airflow part about fifteen.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from include.standalone.bench import airflow_runs, engine
from include.standalone.bench.report import Figure, table
from include.standalone.state import PROJECT

PARTS: dict[str, Callable[[], Iterable[Figure]]] = {
    "engine": engine.engine,
    "airflow": airflow_runs.airflow_runs,
}


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write the result; 0 when every command succeeded, whatever the figures are."""
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="this part (may be given again)")
    parser.add_argument("--output", type=Path, default=PROJECT / "bench.json", help="default: %(default)s")
    options = parser.parse_args(arguments)
    # What is measured is the product as it comes, on bars that never reach a database of the user's.
    for name in [name for name in os.environ if name.startswith("MLTRADING_")]:
        if name != "MLTRADING_STATE_DIR":
            del os.environ[name]
    load_before = os.getloadavg()[0]
    figures: list[Figure] = []
    for part in options.only or PARTS:
        for figure in PARTS[part]():
            print(figure, flush=True)
            figures.append(figure)
    result = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load_before": round(load_before, 2),
        "figures": [asdict(figure) | {"met": figure.met} for figure in figures],
    }
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(f"\n{result['machine']}, load {load_before:.1f} before\n\n{table(figures)}\n")
    print(f"written to {options.output}")
    return 0
