"""What several commands take: symbols, instants, paths."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from include.mltrading.configuration.settings import Settings

# (name, the command, what it does) -> the parser that takes its arguments
Add = Callable[[str, Any, str], argparse.ArgumentParser]


def chosen_symbols(options: argparse.Namespace, settings: Settings) -> list[str]:
    """Those of --symbols, else all of the symbols file. Raises UsageError."""
    from include.mltrading.configuration.symbols import parse_symbols, read_symbols_file

    if options.symbols is None:
        return read_symbols_file(settings.symbols_file)
    return parse_symbols(options.symbols.split(","))


def instant(text: str | None, name: str) -> datetime | None:
    """The instant that an argument names. Raises UsageError."""
    from include.mltrading.pipeline.window import parse_instant

    return None if text is None else parse_instant(text, name)


def path(text: str) -> Path:
    """A path that is not empty."""
    # Path("") is the current folder, where a variable that is not set would put it.
    if not text:
        raise argparse.ArgumentTypeError("the path is empty: is a variable not set?")
    return Path(text)
