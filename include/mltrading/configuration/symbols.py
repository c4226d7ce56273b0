"""Ticker symbols: what one looks like, and the file that lists the universe.

Yahoo's spelling is used throughout: a share class is set off by a dash (BRK-B).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from include.mltrading.errors import UsageError

# The same pattern guards the tables (sql/migrations) and the trigger forms.
SYMBOL_PATTERN = r"^[A-Z][A-Z0-9]{0,9}(-[A-Z]{1,2})?$"
_LONGEST_SHOWN = 80
_SYMBOL = re.compile(SYMBOL_PATTERN.removeprefix("^").removesuffix("$"))


def parse_symbol(text: str) -> str:
    """The symbol in Yahoo's spelling (BRK.B becomes BRK-B, letters upper case).

    Raises UsageError when the text is no symbol.
    """
    symbol = text.strip(" \t").upper().replace(".", "-")
    # Some letters become others in upper case: ß becomes SS.
    if not text.isascii() or not _SYMBOL.fullmatch(symbol):
        raise UsageError(
            f"{text[:_LONGEST_SHOWN]!r} is not a ticker symbol: give up to 10 letters or digits that start "
            "with a letter, with a share class after a dash (AAPL, BRK-B)"
        )
    return symbol


def parse_symbols(texts: Iterable[str]) -> list[str]:
    """Symbols in the given order, each once. Raises UsageError naming the first that is none."""
    return list(dict.fromkeys(parse_symbol(text) for text in texts))


def read_symbols_file(path: Path) -> list[str]:
    """The universe: one symbol a line, `#` starts a comment.

    Raises UsageError naming the file and each line with a malformed or repeated symbol, or a file without
    any.
    """
    try:
        # "-sig": editors on Windows begin a file with a mark.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UsageError(
            f"symbols file {path}: cannot be read ({error.strerror}); "
            "set MLTRADING_SYMBOLS_FILE to a readable file"
        ) from None
    except UnicodeDecodeError:
        raise UsageError(f"symbols file {path}: is not UTF-8 text; save it as plain text") from None
    seen: dict[str, int] = {}
    problems = []
    for number, line in enumerate(lines, start=1):
        text = line.split("#", 1)[0].strip()
        if not text:
            continue
        try:
            symbol = parse_symbol(text)
        except UsageError as error:
            problems.append(f"symbols file {path}, line {number}: {error}")
            continue
        if seen.setdefault(symbol, number) != number:
            problems.append(
                f"symbols file {path}, line {number}: {symbol} stands already on line {seen[symbol]}; "
                "remove one"
            )
    if not seen and not problems:
        problems.append(f"symbols file {path}: holds no symbol; write one ticker a line, such as AAPL")
    if problems:
        raise UsageError("\n".join(problems))
    return list(seen)


# What Airflow takes (core.max_map_length).
MAX_BATCHES = 1024


def batches(symbols: Sequence[str], size: int) -> list[list[str]]:
    """The symbols in lists of at most `size`, in order: one list for each mapped task instance."""
    return [list(symbols[start : start + size]) for start in range(0, len(symbols), size)]
