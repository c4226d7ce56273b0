"""The command line. Exit codes: 0 = all done, 1 = something failed, 2 = bad usage or configuration.

75 = nothing failed, but the rate limit or a pause that the vendor asked for lasted longer than the command.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from include.mltrading.errors import MLTradingError, UsageError
from include.mltrading.settings import Settings

if TYPE_CHECKING:
    from include.mltrading.pipeline.runner import Outcome
    from include.mltrading.pipeline.window import Window

# The vendor is asked by so many processes at a time; see the pool yahoo_api.
_FETCHES = 5
# A symbol's process waits for PostgreSQL half of its time, so twice the cores are kept busy; and at most so
# many connections are taken, beside the one of the command itself.
_COMPUTATIONS = 8
# How far back alerts are listed; a hundred years is all.
_MOST_DAYS = 36500


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code.

    An error goes to stderr in one line, with --json also to stdout as {"error": ...}.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        exit_code: int = options.command(options, Settings.from_environment())
    except MLTradingError as error:
        return _failed(options, error)
    except Exception as error:
        from psycopg import Error as PsycopgError  # only now, when something has gone wrong

        if not isinstance(error, PsycopgError):
            raise
        from include.mltrading.store.connection import database_errors

        return _failed(options, database_errors(error))
    return exit_code


def _failed(options: argparse.Namespace, error: MLTradingError) -> int:
    print(f"error: {error}", file=sys.stderr)
    if options.json:
        print(json.dumps({"error": str(error)}))
    return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m include.mltrading",
        description="Hourly US-equity bars and 36 technical features in PostgreSQL.",
        epilog="Exit codes: 0 = all done, 1 = something failed, 2 = bad usage or configuration, "
        "75 = try again later (rate limit).",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, command: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(command=command)
        sub.add_argument("--json", action="store_true", help="one JSON document on stdout")
        return sub

    add("migrate", _migrate, "bring the database schema up to date")
    collect = add("collect", _collect, "collect bars from Yahoo")
    collect.add_argument("--symbols", help="comma-separated, such as AAPL,MSFT (default: the symbols file)")
    collect.add_argument("--start", help="ISO date or time from which on bars are asked for")
    collect.add_argument("--end", help="ISO date or time at which the window ends (default: now)")
    span = collect.add_mutually_exclusive_group()
    span.add_argument("--sessions", type=int, help="so many sessions up to the end (default: 3)")
    span.add_argument("--period", help="1mo ... 2y up to the end")
    features = add("features", _features, "compute the features of new and changed bars")
    features.add_argument("--symbols", help="comma-separated, such as AAPL,MSFT (default: the symbols file)")
    features.add_argument("--full", action="store_true", help="recompute all rows")
    features.add_argument("--dry-run", action="store_true", help="compute, count and write nothing")
    check = add("check", _check, "tell the health of the data, or the story of a run")
    what = check.add_mutually_exclusive_group()
    what.add_argument("--run", metavar="ID", help="the story of a run, by its run id or correlation id")
    what.add_argument("--recompute", type=int, metavar="N", help="recompute N random symbols and compare")
    quarantine = add("quarantine", _quarantine, "look at refused bars, or let one in")
    quarantine.add_argument("action", choices=["list", "release"])
    quarantine.add_argument("--symbol", "--symbols", help="comma-separated; one for release")
    quarantine.add_argument("--timestamp", help="start of the bar, ISO; UTC without an offset")
    quarantine.add_argument("--id", default="", help="which one, where an hour has several")
    quarantine.add_argument("--all", action="store_true", help="list released ones too")
    alerts = add("alerts", _alerts, "list what people were told, or send a sample of each mail")
    alerts.add_argument("action", choices=["list", "test"])
    alerts.add_argument("--days", type=float, default=7, help="list: how far back (default: 7)")
    add("validate", _validate, "check all configuration")
    add("task", _task, "do the task in MLTRADING_TASK (for the DAGs)")
    return parser


def _migrate(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.store.connection import connect
    from include.mltrading.store.migrations import migrate

    with connect(settings) as connection:
        applied = migrate(connection)
    _print(options, {"applied": applied}, "\n".join(f"applied {name}" for name in applied) or "up to date")
    return 0


def _collect(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.config import load_deployments
    from include.mltrading.market import calendar, yahoo
    from include.mltrading.pipeline.batch import STARTUP_SECONDS, run_batch
    from include.mltrading.pipeline.collect import FETCH_SECONDS, Collection
    from include.mltrading.pipeline.run import Run
    from include.mltrading.pipeline.runner import Limits
    from include.mltrading.pipeline.steps import COLLECT

    symbols = _symbols(options, settings)
    end = _instant(options.end, "--end")
    if end is not None and end > datetime.now(UTC):
        raise UsageError(f"--end {options.end} lies in the future: leave it out to collect up to now")
    run = Run.from_command_line(end)
    window = _window(options, run.window_end)
    delay = load_deployments(settings.deployments_file).pipeline.finality_delay_minutes
    yahoo.preload()
    calendar.preload()
    _log_to_stderr(run.correlation_id, logging.WARNING)
    with _Progress(options, len(symbols)) as progress:
        outcomes = run_batch(
            settings,
            run,
            COLLECT,
            symbols,
            Collection(settings, run, window, timedelta(minutes=delay)),
            limits=Limits(FETCH_SECONDS, STARTUP_SECONDS, FETCH_SECONDS, settings.collect_memory_mb),
            concurrency=_FETCHES,
            on_outcome=progress,
        )
    return _report(options, run.correlation_id, outcomes)


def _features(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.pipeline.batch import run_batch
    from include.mltrading.pipeline.features import FeatureComputation
    from include.mltrading.pipeline.run import Run
    from include.mltrading.pipeline.runner import run_isolated
    from include.mltrading.pipeline.steps import FEATURES
    from include.mltrading.pipeline.task import feature_limits

    symbols = _symbols(options, settings)
    run = Run.from_command_line(None)
    work = FeatureComputation(settings, run, full=options.full, dry_run=options.dry_run)
    limits, concurrency = feature_limits(settings), min(2 * (os.cpu_count() or 1), _COMPUTATIONS)
    _log_to_stderr(run.correlation_id, logging.WARNING)
    with _Progress(options, len(symbols)) as progress:
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
    return _report(options, run.correlation_id, outcomes)


def _check(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.pipeline import check

    if options.run is not None:
        told = check.story(settings, options.run)
        _print(options, told, _story_text(told))
        return 1 if told["failed"] else 0
    if options.recompute is not None:
        if options.recompute < 1:
            raise UsageError(f"--recompute {options.recompute}: give the number of symbols, at least 1")
        worst = check.recompute(settings, options.recompute)
        lines = [f"{column:<22} {value:.1e}" for column, value in worst.items()]
        _print(options, worst, "largest relative difference per feature\n" + "\n".join(lines))
        return 0
    from include.mltrading.pipeline.quality import Missing, listing

    found = check.health(settings)
    missing = [Missing(**row) for row in found["missing_bars"]]
    milliseconds = found["query_milliseconds"]
    _print(
        options,
        found,
        f"database        ok, queries in {', '.join(f'{ms:g} ms' for ms in milliseconds.values())}\n"
        f"latest bar      {found['latest_bar']} ({check.age(found['latest_bar'])})\n"
        f"symbols         {found['symbols']}, without bars: {_names(found['symbols_without_bars'])}\n"
        f"stale features  {_names(found['symbols_with_stale_features'])}\n"
        f"features of the last day  {found['features_of_the_last_day']}\n"
        f"missing bars    of the last {check.CHECKED_SESSIONS} sessions: {listing(missing)}\n"
        f"quarantine      {found['quarantined_bars']} refused bars; `quarantine list` shows them",
    )
    return 1 if found["symbols_without_bars"] else 0


def _quarantine(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.market.symbols import parse_symbols
    from include.mltrading.pipeline import quarantine

    symbols = None if options.symbol is None else parse_symbols(options.symbol.split(","))
    timestamp = _instant(options.timestamp, "--timestamp")
    if options.action == "list":
        rows = quarantine.listed(settings, symbols, timestamp, options.all)
        lines = [
            f"{row['symbol']:<12} {row['timestamp']:%Y-%m-%dT%H:%M}Z  {row['id']}  {row['reason']}  "
            f"({_prices(row['payload'])})"
            + ("  another bar is stored" if row["stored"] and not row["released_at"] else "")
            + ("  released" if row["released_at"] else "")
            for row in rows
        ]
        _print(options, rows, "\n".join([*lines, f"{len(rows)} refused bars"]))
        return 0
    if symbols is None or len(symbols) != 1 or timestamp is None:
        raise UsageError(
            "quarantine release needs one --symbol and a --timestamp, as `quarantine list` shows"
        )
    bar = quarantine.release(settings, symbols[0], timestamp, options.id)
    _print(
        options,
        {"symbol": symbols[0], **bar._asdict()},
        f"released {symbols[0]} {bar.timestamp:%Y-%m-%dT%H:%M}Z; the next features run computes from there",
    )
    return 0


def _prices(payload: dict[str, str]) -> str:
    return ", ".join(f"{name} {payload[name]}" for name in ("open", "high", "low", "close", "volume"))


def _alerts(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.alerts import commands

    if options.action == "test":
        sent = commands.send_samples(settings)
        _print(
            options, {"sent": sent}, f"sent {len(sent)} mails to {', '.join(commands.addressees(settings))}"
        )
        return 0
    if not 0 < options.days <= _MOST_DAYS:  # NaN fails the comparison too
        raise UsageError(f"--days {options.days:g}: give a number above 0, at most {_MOST_DAYS}")
    rows = commands.listed(settings, timedelta(days=options.days))
    lines = [
        f"{row['opened_at']:%Y-%m-%dT%H:%M}Z  {row['severity']:<8}  {row['kind']:<20}  "
        f"{'open' if row['resolved_at'] is None else 'over':<4}  "
        f"{'not mailed' if row['sent_at'] is None else 'mailed':<10}  {row['subject']}"
        for row in rows
    ]
    _print(options, rows, "\n".join([*lines, f"{len(rows)} alerts"]))
    return 0


def _validate(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.pipeline.validate import validate

    validate(settings)
    _print(options, {"valid": True}, "the configuration is valid")
    return 0


def _task(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.pipeline.task import Task, run_task

    task = Task.from_json(os.environ.get("MLTRADING_TASK", ""))
    _log_to_stderr(task.run.correlation_id, logging.INFO)
    return run_task(task, settings)


def _symbols(options: argparse.Namespace, settings: Settings) -> list[str]:
    from include.mltrading.market.symbols import parse_symbols, read_symbols_file

    if options.symbols is None:
        return read_symbols_file(settings.symbols_file)
    return parse_symbols(options.symbols.split(","))


def _window(options: argparse.Namespace, end: datetime) -> Window:
    from include.mltrading.pipeline.window import Window

    if options.start is not None:
        if options.sessions is not None or options.period is not None:
            raise UsageError("--start goes without --sessions and --period: give one of them")
        return Window(end, start=_instant(options.start, "--start"))
    if options.period is not None:
        return Window(end, period=options.period)
    sessions = 3 if options.sessions is None else options.sessions
    if not 1 <= sessions <= 60:
        raise UsageError(f"--sessions {sessions}: give 1 to 60")
    return Window(end, sessions=sessions)


def _instant(text: str | None, name: str) -> datetime | None:
    from include.mltrading.pipeline.window import parse_instant

    return None if text is None else parse_instant(text, name)


def _report(options: argparse.Namespace, correlation_id: str, outcomes: list[Outcome]) -> int:
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
    _print(options, document, "\n".join(lines))
    return worst_exit_code(outcomes)


def _story_text(told: dict[str, Any]) -> str:
    lines = []
    for row in told["steps"]:
        tail = row.get("error") or f"{row.get('rows_written', 0)} rows, {row.get('cpu_seconds', 0):.2f} s CPU"
        lines.append(
            f"{row['started_at']:%Y-%m-%d %H:%M:%S}  {row['dag_id']}  {row['run_id']}  {row['step']}  "
            f"{row['symbol']}  try {row['try']}  {row['status']}  {tail}"
        )
    lines.append(
        f"{told['served']} served, {len(told['failed'])} failed, {told['rows_written']} rows written, "
        f"{told['bars_revised']} bars revised, {told['bars_refused']} refused"
    )
    return "\n".join(lines)


def _names(symbols: list[str]) -> str:
    shown = ", ".join(symbols[:10])
    return (shown + (f" and {len(symbols) - 10} more" if len(symbols) > 10 else "")) or "none"


def _print(options: argparse.Namespace, document: object, text: str) -> None:
    print(json.dumps(document, default=str) if options.json else text)


def _log_to_stderr(correlation_id: str, level: int) -> None:
    logging.basicConfig(
        level=level, stream=sys.stderr, format=f"%(asctime)s {correlation_id} %(levelname)s %(message)s"
    )


class _Progress:
    """A progress bar on a terminal, nothing elsewhere."""

    def __init__(self, options: argparse.Namespace, total: int) -> None:
        self._bar: Any = None
        if sys.stderr.isatty() and not options.json:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            self._bar = Progress(
                TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(),
                console=Console(stderr=True), transient=True, auto_refresh=False,
            )  # fmt: skip
            self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> _Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, outcome: Outcome) -> None:
        if self._bar:
            self._bar.update(self._task, advance=1, description=outcome.symbol, refresh=True)


if __name__ == "__main__":
    sys.exit(main())
