"""TA-Lib without the 0.4 s that its optional pandas and polars support costs at import."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

_OPTIONAL = ("pandas", "polars")


def load() -> ModuleType:
    """Import talib; where the process has not imported pandas or polars yet, keep talib from doing so.

    talib asks for both only to accept their Series. They stay importable afterwards. Not safe while another
    thread imports pandas or polars for the first time: import this at start-up.
    """
    hidden = [name for name in _OPTIONAL if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # import's documented way of "not there"
    try:
        return importlib.import_module("talib")
    finally:
        for name in hidden:
            del sys.modules[name]
