"""`python -m include.market_simulator`: serve until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import signal
import sys
from datetime import datetime
from pathlib import Path
from threading import Event

from include.market_simulator.faults import ControlError
from include.market_simulator.server import MarketSimulator


def main(arguments: list[str] | None = None) -> int:
    """Serve; 0 after a signal, 2 for a wrong argument. The first line on stdout is the address."""
    parser = argparse.ArgumentParser(prog="python -m include.market_simulator", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 (default) takes a free one")
    parser.add_argument("--seed", type=int, default=7, help="what the prices follow from (default 7)")
    parser.add_argument(
        "--clock", default="real", help="the server's now: an ISO instant, or 'real' (default)"
    )
    parser.add_argument("--symbols-file", type=Path, help="symbols that exist although they start with ZZ")
    options = parser.parse_args(arguments)

    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        clock = None if options.clock == "real" else datetime.fromisoformat(options.clock)
        symbols = _read_symbols(options.symbols_file) if options.symbols_file else []
        simulator = MarketSimulator(seed=options.seed, clock=clock, symbols=symbols, port=options.port)
    except ControlError as error:
        parser.error(f"--clock: {error}")
    except ValueError:
        parser.error(f"--clock is {options.clock!r}: give an ISO instant with its time zone, or 'real'")
    except (OSError, OverflowError) as error:
        parser.error(f"{error}: choose another --port or --symbols-file")
    with simulator:
        print(simulator.url, flush=True)
        stop.wait()
    return 0


def _read_symbols(path: Path) -> list[str]:
    """One symbol a line; `#` starts a comment."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


if __name__ == "__main__":
    sys.exit(main())
