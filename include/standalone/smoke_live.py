"""`make smoke-live`: one symbol's last sessions from the real Yahoo, through the adapter; writes nothing."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from include.mltrading.configuration.symbols import parse_symbol
from include.mltrading.market import yahoo
from include.mltrading.market.bars import screen
from include.mltrading.market.calendar import grid, last_sessions


def main(arguments: list[str]) -> int:
    """Fetch, screen and print; raises YahooError when Yahoo cannot be reached or serves nothing."""
    parser = argparse.ArgumentParser(prog="make smoke-live", description=__doc__)
    parser.add_argument("symbol", nargs="?", default="AAPL")
    symbol = parse_symbol(parser.parse_args(arguments).symbol)
    now = datetime.now(UTC)
    start = last_sessions(3, now)[0].open
    reply = yahoo.fetch_hourly(symbol, start, now)
    good, refused = screen(reply.bars, grid(start, now), now)
    for bar, is_final in good:
        print(
            f"{bar.timestamp:%Y-%m-%d %H:%M}  "
            + " ".join(f"{price:10.4f}" for price in (bar.open, bar.high, bar.low, bar.close))
            + f" {bar.volume:>12}  {'final' if is_final else 'running'}"
        )
    for bar, reason in refused:
        print(f"refused: {bar} ({reason})")
    print(f"{symbol}: {len(good)} bars from {reply.source}")
    return 0 if good and not refused else 1
