"""The commands that keep the database: migrate, validate, archive, maintain, backup, restore."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from datetime import date
from pathlib import Path

from include.mltrading.cli.arguments import Add, path
from include.mltrading.cli.output import Progress, show
from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import UsageError


def register(add: Add) -> None:
    """Make the commands of this module known."""
    add("migrate", _migrate, "bring the database schema up to date")
    archive = add("archive", _archive, "move old bars and their features into files, or back")
    way = archive.add_mutually_exclusive_group(required=True)
    way.add_argument(
        "--before", metavar="DATE", help="archive what is older: write it, compare it, then delete it"
    )
    way.add_argument("--import", dest="paths", nargs="+", metavar="PATH", help="bring archives back")
    archive.add_argument(
        "--directory", metavar="DIR", help="for the files (default: archive/ in the state folder)"
    )
    archive.add_argument(
        "--symbols", help="comma-separated, such as AAPL,MSFT (default: all that are stored)"
    )
    maintain = add("maintain", _maintain, "prune old records, vacuum, report sizes and growth")
    maintain.add_argument(
        "--history-days",
        type=int,
        default=90,
        metavar="N",
        help="delete records older than that (default: 90)",
    )
    add("validate", validate, "check all configuration")
    backup = add("backup", _backup, "back up the market database and verify the backup")
    where = backup.add_mutually_exclusive_group(required=True)
    where.add_argument("file", nargs="?", type=path, metavar="FILE", help="the file to make")
    where.add_argument("--directory", type=path, metavar="DIR", help="make DATABASE-TIME.dump in DIR")
    backup.add_argument("--force", action="store_true", help="replace FILE where it exists")
    backup.add_argument(
        "--keep-daily",
        type=int,
        metavar="N",
        help="then keep the newest of each of N days and delete older ones in DIR",
    )
    backup.add_argument("--keep-weekly", type=int, metavar="N", help="and keep the newest of each of N weeks")
    restore = add("restore", _restore, "replace what the market database holds by a backup")
    restore.add_argument("file", type=path, metavar="FILE", help="a file that backup made")
    restore.add_argument("--force", action="store_true", help="what the database holds may be lost")


def _migrate(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.store.connection import connect
    from include.mltrading.store.migrations import migrate

    with connect(settings) as connection:
        applied = migrate(connection)
    show(options, {"applied": applied}, "\n".join(f"applied {name}" for name in applied) or "up to date")
    return 0


def _archive(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.configuration.symbols import parse_symbols
    from include.mltrading.operations import archive
    from include.mltrading.operations.archive_files import manifests

    symbols = None if options.symbols is None else parse_symbols(options.symbols.split(","))
    if options.paths is not None:
        if symbols is not None or options.directory is not None:
            raise UsageError("--import takes its paths only: leave out --symbols and --directory")
        found = manifests([Path(path) for path in options.paths])
        with Progress(options, len(found)) as progress:
            moved = archive.bring_back(settings, found, progress.done)
        verb = "imported"
    else:
        try:
            day = date.fromisoformat(options.before)
        except ValueError:
            raise UsageError(f"--before {options.before!r}: give a date, such as 2025-01-31") from None
        folder = Path(options.directory) if options.directory else archive.default_folder()
        with Progress(options, archive.most_symbols(settings)) as progress:
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
    show(options, {"symbols": [item._asdict() for item in moved], "rows": totals}, "\n".join(lines))
    return 1 if failed else 0


def _maintain(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.operations.maintain import maintain

    with Progress(options) as progress:
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
    show(options, asdict(done), "\n".join(lines))
    return 1 if done.airflow_failed else 0


def validate(options: argparse.Namespace, settings: Settings) -> int:
    """Tell everything that is wrong with the configuration."""
    from include.mltrading.operations.validate import problems

    found = problems()
    for problem in found:
        print(f"error: {problem}", file=sys.stderr)
    if options.json or not found:
        show(options, {"valid": not found, "problems": found}, "the configuration is valid")
    return UsageError.exit_code if found else 0


def _backup(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.operations import backup, retention

    keep = retention.Keep.from_options(options.directory, options.keep_daily, options.keep_weekly)
    file = options.file
    if options.directory is not None:
        file = retention.new_file(options.directory, backup.database_name(settings))
    with Progress(options) as progress:
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
    show(options, document, "\n".join(lines))
    return 0


def _restore(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.operations import backup, check

    with Progress(options) as progress:
        done = backup.restore(settings, options.file, progress.stage, force=options.force)
    rows = sum(done.tables.values())
    show(
        options,
        {"file": str(options.file), **asdict(done)},
        f"restored {rows} rows of {len(done.tables)} tables from {options.file} in {done.seconds:.1f} s\n"
        f"source          {done.source or 'none yet'}\n"
        f"latest bar      {check.with_age(done.latest_bar)}\n"
        f"migrated        {', '.join(done.migrated) or 'nothing to do'}",
    )
    return 0
