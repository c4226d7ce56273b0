"""The commands that do what runs do: collect, reload, features, and a DAG's task."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from include.mltrading.cli.arguments import Add, chosen_symbols, instant
from include.mltrading.cli.output import Progress, log_to_stderr, report
from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import UsageError
from include.mltrading.pipeline.window import PERIODS

if TYPE_CHECKING:
    from include.mltrading.pipeline.child import Work
    from include.mltrading.pipeline.run import Run
    from include.mltrading.pipeline.window import Window


# The vendor is asked by so many processes at a time; see the pool yahoo_api.
_FETCHES = 5
# So many processes compute, with a connection each: one waits for PostgreSQL while others keep cores busy.
_COMPUTATIONS = 3


def register(add: Add) -> None:
    """Make the commands of this module known."""
    collect = add("collect", _collect, "collect bars from Yahoo")
    collect.add_argument("--symbols", help="comma-separated, such as AAPL,MSFT (default: the symbols file)")
    collect.add_argument("--start", help="ISO date or time at which the window starts, UTC without an offset")
    collect.add_argument(
        "--end", help="ISO date or time at which the window ends (default: now), UTC without an offset"
    )
    span = collect.add_mutually_exclusive_group()
    span.add_argument("--sessions", type=int, help="this many sessions up to the end (default: 3)")
    span.add_argument("--period", help=f"this far back from the end: {', '.join(PERIODS)}")
    reload = add("reload", _reload, "replace the stored history of symbols by Yahoo's")
    reload.add_argument("--symbols", required=True, help="comma-separated, such as AAPL,MSFT")
    reload.add_argument(
        "--period",
        default="1y",
        help=f"this far back from now; older bars are removed too: {', '.join(PERIODS)} (default: 1y)",
    )
    features = add("features", _features, "compute the features of new and changed bars")
    features.add_argument("--symbols", help="comma-separated, such as AAPL,MSFT (default: the symbols file)")
    features.add_argument("--full", action="store_true", help="recompute all rows")
    features.add_argument("--dry-run", action="store_true", help="compute, count and write nothing")
    add("task", _task, "run the task in MLTRADING_TASK (for the DAGs)")


def _collect(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.pipeline.collect import Collection
    from include.mltrading.pipeline.run import Run
    from include.mltrading.pipeline.steps import COLLECT

    symbols = chosen_symbols(options, settings)
    end = instant(options.end, "--end")
    if end is not None and end > datetime.now(UTC):
        raise UsageError(f"--end {options.end} lies in the future: leave it out to collect up to now")
    run = Run.from_command_line(end)
    window = _window(options, run.window_end)
    window.require_served()
    return _asked_of_yahoo(
        options, settings, COLLECT, symbols, run, partial(Collection, settings, run, window)
    )


def _asked_of_yahoo(
    options: argparse.Namespace,
    settings: Settings,
    step: str,
    symbols: Sequence[str],
    run: Run,
    work: Callable[[timedelta], Work],
) -> int:
    """Do the step for each symbol, and report. work: makes it, given the finality delay."""
    from include.mltrading.configuration.deployments import load_deployments
    from include.mltrading.market import calendar, yahoo
    from include.mltrading.pipeline.batch import STARTUP_SECONDS, run_batch
    from include.mltrading.pipeline.child import Limits
    from include.mltrading.pipeline.collect import FETCH_SECONDS

    delay = load_deployments(settings.deployments_file).pipeline.finality_delay_minutes
    yahoo.preload()
    calendar.preload()
    log_to_stderr(run.correlation_id, logging.WARNING)
    with Progress(options, len(symbols)) as progress:
        outcomes = run_batch(
            settings,
            run,
            step,
            symbols,
            work(timedelta(minutes=delay)),
            limits=Limits(FETCH_SECONDS, STARTUP_SECONDS, FETCH_SECONDS, settings.collect_memory_mb),
            concurrency=_FETCHES,
            on_outcome=progress,
        )
    return report(options, run.correlation_id, outcomes)


def _window(options: argparse.Namespace, end: datetime) -> Window:
    from include.mltrading.pipeline.window import Window

    if options.start is not None:
        if options.sessions is not None or options.period is not None:
            raise UsageError("--start goes without --sessions and --period: give one of them")
        return Window(end, start=instant(options.start, "--start"))
    if options.period is not None:
        return Window(end, period=options.period)
    sessions = 3 if options.sessions is None else options.sessions
    if not 1 <= sessions <= 60:
        raise UsageError(f"--sessions {sessions}: give 1 to 60")
    return Window(end, sessions=sessions)


def _reload(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.operations import check
    from include.mltrading.operations.reload import Reload
    from include.mltrading.pipeline.run import Run
    from include.mltrading.pipeline.steps import RELOAD
    from include.mltrading.pipeline.window import Window

    symbols = chosen_symbols(options, settings)
    run = Run.from_command_line(None)
    window = Window(run.window_end, period=options.period)
    check.require_bars(settings, symbols)
    return _asked_of_yahoo(options, settings, RELOAD, symbols, run, partial(Reload, settings, run, window))


def _features(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.cli.task import feature_limits
    from include.mltrading.pipeline.batch import run_batch
    from include.mltrading.pipeline.features import FeatureComputation
    from include.mltrading.pipeline.run import Run
    from include.mltrading.pipeline.runner import run_isolated
    from include.mltrading.pipeline.steps import FEATURES

    symbols = chosen_symbols(options, settings)
    if options.symbols is not None:
        from include.mltrading.operations import check

        check.require_bars(settings, symbols)
    run = Run.from_command_line(None)
    work = FeatureComputation(settings, run, full=options.full, dry_run=options.dry_run)
    limits, concurrency = feature_limits(settings), _COMPUTATIONS
    log_to_stderr(run.correlation_id, logging.WARNING)
    with Progress(options, len(symbols)) as progress:
        if options.dry_run:
            # Not even the ledger hears of it.
            outcomes = run_isolated(
                symbols, work, limits=limits, concurrency=concurrency, on_outcome=progress
            )
        else:
            outcomes = run_batch(
                settings, run, FEATURES, symbols, work,
                limits=limits, concurrency=concurrency, on_outcome=progress,
            )  # fmt: skip
    return report(options, run.correlation_id, outcomes)


def _task(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.cli.task import Task, run_task
    from include.mltrading.pipeline.follow import follow

    # There are none where a person calls it.
    if parents := [int(pid) for pid in os.environ.get("MLTRADING_TASK_PARENTS", "").split()]:
        follow(parents)
    task = Task.from_json(os.environ.get("MLTRADING_TASK", ""))
    log_to_stderr(task.run.correlation_id, logging.INFO)
    return run_task(task, settings)
