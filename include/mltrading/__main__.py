"""The command line. Exit codes: 0 = all done, 1 = something failed, 2 = bad usage or configuration.

75 = nothing failed, but the rate limit or a pause that the vendor asked for lasted longer than the command.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import MLTradingError, UsageError
from include.mltrading.pipeline.window import PERIODS

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
_MOST_RECOMPUTED = 1_000_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code.

    An error goes to stderr in one line, with --json also to stdout as {"error": ...}.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        # `validate` tells what is wrong with the environment beside everything else.
        settings = Settings.read()[0] if options.command is _validate else Settings.from_environment()
        exit_code: int = options.command(options, settings)
    except MLTradingError as error:
        return _failed(options, error)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        from psycopg import Error as PsycopgError  # only now, when something has gone wrong

        if not isinstance(error, PsycopgError):
            raise
        from include.mltrading.store.connection import database_errors

        return _failed(options, database_errors(error))
    return exit_code


def _failed(options: argparse.Namespace, error: MLTradingError) -> int:
    for line in str(error).splitlines():
        print(f"error: {line}", file=sys.stderr)
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
    collect.add_argument(
        "--start", help="ISO date or time from which on bars are asked for, UTC without an offset"
    )
    collect.add_argument(
        "--end", help="ISO date or time at which the window ends (default: now), UTC without an offset"
    )
    span = collect.add_mutually_exclusive_group()
    span.add_argument("--sessions", type=int, help="so many sessions up to the end (default: 3)")
    span.add_argument("--period", help=f"so long up to the end: {', '.join(PERIODS)}")
    reload = add("reload", _reload, "replace the stored history of symbols by Yahoo's")
    reload.add_argument("--symbols", required=True, help="comma-separated, such as AAPL,MSFT")
    reload.add_argument(
        "--period",
        default="1y",
        help=f"so long up to now, older bars go too: {', '.join(PERIODS)} (default: 1y)",
    )
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
    archive = add("archive", _archive, "move old bars and their features into files, or back")
    way = archive.add_mutually_exclusive_group(required=True)
    way.add_argument(
        "--before", metavar="DATE", help="archive what is older: written, compared, then deleted"
    )
    way.add_argument("--import", dest="paths", nargs="+", metavar="PATH", help="bring archives back")
    archive.add_argument(
        "--directory", metavar="DIR", help="for the files (default: archive/ in the state folder)"
    )
    archive.add_argument(
        "--symbols", help="comma-separated, such as AAPL,MSFT (default: all that are stored)"
    )
    maintain = add("maintain", _maintain, "prune old records, vacuum, tell sizes and growth")
    maintain.add_argument(
        "--history-days", type=int, default=90, metavar="N", help="older records go (default: 90)"
    )
    add("validate", _validate, "check all configuration")
    backup = add("backup", _backup, "back the market database up, and prove the backup good")
    where = backup.add_mutually_exclusive_group(required=True)
    where.add_argument("file", nargs="?", type=_path, metavar="FILE", help="the file to make")
    where.add_argument("--directory", type=_path, metavar="DIR", help="make DATABASE-TIME.dump in DIR")
    backup.add_argument("--force", action="store_true", help="FILE may exist: replace it")
    backup.add_argument(
        "--keep-daily", type=int, metavar="N", help="then keep the newest of N days, delete older ones of DIR"
    )
    backup.add_argument("--keep-weekly", type=int, metavar="N", help="and the newest of N weeks")
    restore = add("restore", _restore, "put a backup in place of what the market database holds")
    restore.add_argument("file", type=_path, metavar="FILE", help="a file that backup made")
    restore.add_argument("--force", action="store_true", help="what the database holds may be lost")
    add("task", _task, "do the task in MLTRADING_TASK (for the DAGs)")
    return parser


def _path(text: str) -> Path:
    # Path("") is the current folder, where a variable that is not set would put it.
    if not text:
        raise argparse.ArgumentTypeError("the path is empty: is a variable not set?")
    return Path(text)


def _migrate(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.store.connection import connect
    from include.mltrading.store.migrations import migrate

    with connect(settings) as connection:
        applied = migrate(connection)
    _print(options, {"applied": applied}, "\n".join(f"applied {name}" for name in applied) or "up to date")
    return 0


def _collect(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.configuration.deployments import load_deployments
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
    window.require_served()
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


def _reload(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.configuration.deployments import load_deployments
    from include.mltrading.market import calendar, yahoo
    from include.mltrading.operations import check
    from include.mltrading.operations.reload import Reload
    from include.mltrading.pipeline.batch import STARTUP_SECONDS, run_batch
    from include.mltrading.pipeline.collect import FETCH_SECONDS
    from include.mltrading.pipeline.run import Run
    from include.mltrading.pipeline.runner import Limits
    from include.mltrading.pipeline.steps import RELOAD
    from include.mltrading.pipeline.window import Window

    symbols = _symbols(options, settings)
    run = Run.from_command_line(None)
    window = Window(run.window_end, period=options.period)
    check.require_bars(settings, symbols)
    delay = load_deployments(settings.deployments_file).pipeline.finality_delay_minutes
    yahoo.preload()
    calendar.preload()
    _log_to_stderr(run.correlation_id, logging.WARNING)
    with _Progress(options, len(symbols)) as progress:
        outcomes = run_batch(
            settings,
            run,
            RELOAD,
            symbols,
            Reload(settings, run, window, timedelta(minutes=delay)),
            limits=Limits(FETCH_SECONDS, STARTUP_SECONDS, FETCH_SECONDS, settings.collect_memory_mb),
            concurrency=_FETCHES,
            on_outcome=progress,
        )
    return _report(options, run.correlation_id, outcomes)


def _features(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.cli.task import feature_limits
    from include.mltrading.operations import check
    from include.mltrading.pipeline.batch import run_batch
    from include.mltrading.pipeline.features import FeatureComputation
    from include.mltrading.pipeline.run import Run
    from include.mltrading.pipeline.runner import run_isolated
    from include.mltrading.pipeline.steps import FEATURES

    symbols = _symbols(options, settings)
    if options.symbols is not None:
        check.require_bars(settings, symbols)
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
    from include.mltrading.operations import check

    if options.run is not None:
        told = check.story(settings, options.run)
        _print(options, told, _story_text(told))
        return 1 if told["failed"] else 0
    if options.recompute is not None:
        if not 1 <= options.recompute <= _MOST_RECOMPUTED:
            raise UsageError(
                f"--recompute {options.recompute}: give a number of symbols from 1 to {_MOST_RECOMPUTED}"
            )
        worst = check.recompute(settings, options.recompute)
        lines = [f"{column:<22} {value:.1e}" for column, value in worst.items()]
        _print(options, worst, "largest relative difference per feature\n" + "\n".join(lines))
        return 0
    from include.mltrading.configuration.deployments import load_deployments
    from include.mltrading.monitor.diagnosis import diagnose, in_words
    from include.mltrading.pipeline.quality import SILENT_SESSIONS, Missing, listing

    diagnosis = diagnose(settings)
    found = diagnosis.data
    silent = found["symbols_without_new_bars"]
    missing = [Missing(**row) for row in found["missing_bars"] if row["symbol"] not in silent]
    withheld = [
        f"{day['day']}: {day['hours']} hours of {day['symbols']} symbols" for day in found["bars_withheld"]
    ]
    milliseconds = found["query_milliseconds"]
    system = "\n".join(in_words(diagnosis, load_deployments(settings.deployments_file)))
    _print(
        options,
        diagnosis.as_document(),
        f"database        ok, queries in {', '.join(f'{ms:g} ms' for ms in milliseconds.values())}\n"
        f"latest bar      {check.with_age(found['latest_bar'])}\n"
        f"symbols         {found['symbols']}, without bars: {_names(found['symbols_without_bars'])}\n"
        f"no new bars     for {SILENT_SESSIONS} sessions (halted, delisted or renamed?): {_names(silent)}\n"
        f"stale features  {_names(found['symbols_with_stale_features'])}\n"
        f"features of the last day  {found['features_of_the_last_day']}\n"
        f"missing bars    of the last {check.CHECKED_SESSIONS} sessions: {listing(missing)}\n"
        f"Yahoo lacks     (or the exchange was closed: exchange.special_days): {listing(withheld)}\n"
        f"quarantine      {found['quarantined_bars']} refused bars; `quarantine list` shows them\n"
        f"last backup     {check.with_age(found['last_backup'])}\n"
        f"{system}",
    )
    return 1 if found["symbols_without_bars"] else 0


def _quarantine(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.configuration.symbols import parse_symbols
    from include.mltrading.operations import quarantine

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


def _archive(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.configuration.symbols import parse_symbols
    from include.mltrading.operations import archive

    symbols = None if options.symbols is None else parse_symbols(options.symbols.split(","))
    if options.paths is not None:
        if symbols is not None or options.directory is not None:
            raise UsageError("--import takes its paths only: leave out --symbols and --directory")
        found = archive.manifests([Path(path) for path in options.paths])
        with _Progress(options, len(found)) as progress:
            moved = archive.bring_back(settings, found, progress.done)
        verb = "imported"
    else:
        try:
            day = date.fromisoformat(options.before)
        except ValueError:
            raise UsageError(f"--before {options.before!r}: give a date, such as 2025-01-31") from None
        folder = Path(options.directory) if options.directory else archive.default_folder()
        with _Progress(options, archive.most_symbols(settings)) as progress:
            moved = archive.archive_before(settings, day, folder, symbols, progress.done)
        verb = f"archived in {folder / f'before-{day}'}"
    failed = [item for item in moved if item.error]
    for item in failed:
        print(f"error: {item.error}", file=sys.stderr)
    totals: dict[str, int] = {}
    for item in moved:
        for table, rows in item.rows.items():
            totals[table] = totals.get(table, 0) + rows
    lines = [f"{table:<24} {rows:>9} rows" for table, rows in totals.items()]
    changed = sum(bool(item.rows) for item in moved)
    idle = len(moved) - changed - len(failed)
    counted = f"{changed} symbols {verb}; {idle} had nothing to do, {len(failed)} failed"
    lines.append(counted if moved else "there is nothing to do: no symbol has rows before that day")
    _print(options, {"symbols": [item._asdict() for item in moved], "rows": totals}, "\n".join(lines))
    return 1 if failed else 0


def _maintain(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.operations.maintain import maintain

    with _Progress(options) as progress:
        done = maintain(settings, options.history_days, progress.done)
    lines = [
        f"ledger    {done.pruned} tries of before {done.history_days} days ago deleted",
        f"airflow   {done.airflow}",
        f"{'table':<36} {'MB':>9} {'rows':>11} {'dead':>8}   grown",
    ]
    for table in done.tables:
        grown = (
            "first time"
            if table.since is None or table.grown_bytes is None
            else f"{table.grown_bytes / 1e6:+.1f} MB, {table.grown_rows:+} rows since {table.since:%Y-%m-%d}"
        )
        note = "" if table.vacuumed else "  (not vacuumed: another role's, or in use)"
        lines.append(
            f"{table.name:<36} {table.bytes / 1e6:>9.1f} {table.rows:>11} {table.dead_rows:>8}   "
            f"{grown}{note}"
        )
    lines.append(f"{'index':<36} {'MB':>9} {'scans':>11}")
    lines.extend(
        f"{index.name:<36} {index.bytes / 1e6:>9.1f} {index.scans:>11}"
        + ("   never used" if not index.scans and not index.needed else "")
        for index in done.indexes
    )
    _print(options, asdict(done), "\n".join(lines))
    return 1 if done.airflow_failed else 0


def _validate(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.operations.validate import problems

    found = problems()
    for problem in found:
        print(f"error: {problem}", file=sys.stderr)
    if options.json or not found:
        _print(options, {"valid": not found, "problems": found}, "the configuration is valid")
    return UsageError.exit_code if found else 0


def _backup(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.operations import backup, retention

    keep = retention.Keep.from_options(options.directory, options.keep_daily, options.keep_weekly)
    file = options.file
    if options.directory is not None:
        file = retention.new_file(options.directory, backup.database_name(settings))
    with _Progress(options) as progress:
        made = backup.backup(settings, file, progress.stage, force=options.force)
    deleted = [] if keep is None else retention.prune(file, keep)
    for name in made.left_out:
        print(f"note: {name} is not the program's and is not in the backup", file=sys.stderr)
    document = {**asdict(made), "deleted": deleted}
    rows = sum(made.tables.values())
    lines = [
        f"backed up {rows} rows of {len(made.tables)} tables to {file} ({made.bytes / 1e6:.1f} MB) in "
        f"{made.seconds:.1f} s; restored in {made.verified_in} and compared: equal",
        *(f"deleted {path}" for path in deleted),
    ]
    _print(options, document, "\n".join(lines))
    return 0


def _restore(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.operations import backup, check

    with _Progress(options) as progress:
        done = backup.restore(settings, options.file, progress.stage, force=options.force)
    rows = sum(done.tables.values())
    _print(
        options,
        {"file": str(options.file), **asdict(done)},
        f"restored {rows} rows of {len(done.tables)} tables from {options.file} in {done.seconds:.1f} s\n"
        f"source          {done.source or 'none yet'}\n"
        f"latest bar      {check.with_age(done.latest_bar)}\n"
        f"migrated        {', '.join(done.migrated) or 'nothing to do'}",
    )
    return 0


def _task(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.cli.task import Task, run_task
    from include.mltrading.pipeline.follow import follow

    # There are none where a person calls it.
    if parents := [int(pid) for pid in os.environ.get("MLTRADING_TASK_PARENTS", "").split()]:
        follow(parents)
    task = Task.from_json(os.environ.get("MLTRADING_TASK", ""))
    _log_to_stderr(task.run.correlation_id, logging.INFO)
    return run_task(task, settings)


def _symbols(options: argparse.Namespace, settings: Settings) -> list[str]:
    from include.mltrading.configuration.symbols import parse_symbols, read_symbols_file

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
    try:
        print(json.dumps(document, default=str) if options.json else text, flush=True)
    except OSError as error:
        # What is left in the buffer would fail again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # `… | head` has seen enough
            raise MLTradingError(f"the output cannot be written ({error.strerror})") from None


def _log_to_stderr(correlation_id: str, level: int) -> None:
    logging.basicConfig(
        level=level, stream=sys.stderr, format=f"%(asctime)s {correlation_id} %(levelname)s %(message)s"
    )


class _Progress:
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

    def __enter__(self) -> _Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, outcome: Outcome) -> None:
        self.done(outcome.symbol)

    def done(self, name: str) -> None:
        if self._bar:
            self._bar.update(self._task, advance=1, description=name, refresh=True)

    def stage(self, description: str, done: int, total: int | None) -> None:
        """What is being done, how much of it is done, and of how much."""
        if self._bar:
            self._bar.update(self._task, completed=done, total=total, description=description, refresh=True)


if __name__ == "__main__":
    sys.exit(main())
