"""What the commands print: results, progress, logs."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from include.mltrading.errors import MLTradingError

if TYPE_CHECKING:
    from include.mltrading.pipeline.runner import Outcome


def show(options: argparse.Namespace, document: object, text: str) -> None:
    """Print the text, or with --json the document. Raises MLTradingError when the output has no room."""
    try:
        print(json.dumps(document, default=str) if options.json else text, flush=True)
    except OSError as error:
        # What is left in the buffer would fail again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # `… | head` has seen enough
            raise MLTradingError(f"the output cannot be written ({error.strerror})") from None


def report(options: argparse.Namespace, correlation_id: str, outcomes: list[Outcome]) -> int:
    """Print how each symbol ended; returns the exit code."""
    from include.mltrading.pipeline.batch import worst_exit_code

    lines = [
        f"{outcome.symbol:<12} {outcome.status:<14} {outcome.rows_written:>7} rows  {outcome.seconds:6.2f} s"
        + (f"  {outcome.error}" if outcome.error else "")
        for outcome in outcomes
    ]
    served = sum(outcome.status == "ok" for outcome in outcomes)
    rows = sum(outcome.rows_written for outcome in outcomes)
    lines.append(f"{served} of {len(outcomes)} symbols served, {rows} rows; run {correlation_id}")
    document = {
        "run": correlation_id,
        "symbols": [
            {
                "symbol": outcome.symbol,
                "status": outcome.status,
                "rows": outcome.rows_written,
                "seconds": round(outcome.seconds, 3),
                "error": outcome.error,
            }
            for outcome in outcomes
        ],
    }
    show(options, document, "\n".join(lines))
    return worst_exit_code(outcomes)


def names(symbols: list[str]) -> str:
    """The first of the symbols in words, "none" for none."""
    shown = ", ".join(symbols[:10])
    return (shown + (f" and {len(symbols) - 10} more" if len(symbols) > 10 else "")) or "none"


def log_to_stderr(correlation_id: str, level: int) -> None:
    """Have every log line carry the run's id."""
    logging.basicConfig(
        level=level, stream=sys.stderr, format=f"%(asctime)s {correlation_id} %(levelname)s %(message)s"
    )


class Progress:
    """A progress bar on a terminal, nothing elsewhere. total: symbols or rows, None = not known yet."""

    def __init__(self, options: argparse.Namespace, total: int | None = None) -> None:
        self._bar: Any = None
        if sys.stderr.isatty() and not options.json:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            self._bar = Progress(
                TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(),
                console=Console(stderr=True), transient=True, auto_refresh=False,
            )  # fmt: skip
            self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, outcome: Outcome) -> None:
        self.done(outcome.symbol)

    def done(self, name: str) -> None:
        """One more symbol."""
        if self._bar:
            self._bar.update(self._task, advance=1, description=name, refresh=True)

    def stage(self, description: str, done: int, total: int | None) -> None:
        """What is being done, how much of it is done, and of how much."""
        if self._bar:
            self._bar.update(self._task, completed=done, total=total, description=description, refresh=True)
