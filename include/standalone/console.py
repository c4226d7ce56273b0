"""What `make demo`, `make run` and `make bench` print while they work."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

# Seconds between two lines about what goes on, where there is no terminal to write over.
_TELL_EVERY = 30.0
_last_told = time.monotonic()


@contextmanager
def step(text: str) -> Iterator[None]:
    """Tell what is being done and how long it took."""
    begun = time.monotonic()
    say_over(f"{text} ...")
    yield
    say_over(f"{text}: done in {time.monotonic() - begun:.1f} s\n")


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def say_over(text: str) -> None:
    """Text that replaces the line before it on a terminal; elsewhere, now and then a line of its own."""
    global _last_told
    if sys.stdout.isatty():
        end = "" if not text.endswith("\n") else "\n"
        # Only the last row of a line that wraps could be written over.
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[2K{text.rstrip()[:width]}", end=end, flush=True)
    elif text.endswith("\n") or time.monotonic() - _last_told > _TELL_EVERY:
        print(text.rstrip(), flush=True)
        _last_told = time.monotonic()
