"""A local HTTP server that speaks Yahoo's chart protocol with invented, repeatable prices.

It serves the demo and the tests. Its bars are a function of (seed, symbol, bar start) alone and every reply
carries the header `X-Market-Data: simulated`, so that they can never pass for real ones.
"""

from include.market_simulator.prices import Bar, bars
from include.market_simulator.server import MarketSimulator

__all__ = ["Bar", "MarketSimulator", "bars"]
