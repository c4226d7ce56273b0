"""`python -m include.market_simulator`: serve until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import signal
from datetime import datetime
from threading import Event

from include.market_simulator.server import MarketSimulator


def main() -> None:
    """Serve; exit code 2 for a wrong argument. The first line on stdout is the address."""
    parser = argparse.ArgumentParser(prog="python -m include.market_simulator", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 (default) takes a free one")
    parser.add_argument("--seed", type=int, default=7, help="what the prices follow from (default 7)")
    parser.add_argument(
        "--clock", type=_instant, help="the server's now: an ISO instant (default: the real one)"
    )
    options = parser.parse_args()
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        simulator = MarketSimulator(seed=options.seed, clock=options.clock, port=options.port)
    except (OSError, OverflowError) as error:
        parser.error(f"argument --port: {error}")
    with simulator:
        print(simulator.url, flush=True)
        stop.wait()


def _instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no ISO instant with its time zone, such as +00:00")
    return instant


if __name__ == "__main__":
    main()
