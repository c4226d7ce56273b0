"""The commands that look at the data: check, quarantine, alerts."""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Any

from include.mltrading.cli.arguments import Add, instant
from include.mltrading.cli.output import names, show
from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import UsageError

# How far back alerts are listed; a hundred years is all.
_MOST_DAYS = 36500
_MOST_RECOMPUTED = 1_000_000


def register(add: Add) -> None:
    """Make the commands of this module known."""
    check = add("check", _check, "show the health of the data, or the story of a run")
    what = check.add_mutually_exclusive_group()
    what.add_argument("--run", metavar="ID", help="the story of a run, by its run id or correlation id")
    what.add_argument(
        "--recompute",
        type=int,
        metavar="N",
        help="recompute N random symbols and compare them with what is stored",
    )
    quarantine = add("quarantine", _quarantine, "list refused bars, or release one")
    quarantine.add_argument("action", choices=["list", "release"], help="list refused bars, or release one")
    quarantine.add_argument("--symbol", "--symbols", help="comma-separated; one for release")
    quarantine.add_argument("--timestamp", help="start of the bar, ISO; UTC without an offset")
    quarantine.add_argument("--id", default="", help="which one, where one hour has several")
    quarantine.add_argument("--all", action="store_true", help="list released ones too")
    alerts = add("alerts", _alerts, "list alerts, or send a sample of each mail")
    alerts.add_argument("action", choices=["list", "test"], help="list alerts, or send a sample of each mail")
    alerts.add_argument("--days", type=float, default=7, help="list: how far back (default: 7)")


def _check(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.operations import check

    if options.run is not None:
        told = check.story(settings, options.run)
        show(options, told, _story_text(told))
        return 1 if told["failed"] else 0
    if options.recompute is not None:
        if not 1 <= options.recompute <= _MOST_RECOMPUTED:
            raise UsageError(
                f"--recompute {options.recompute}: give a number of symbols from 1 to {_MOST_RECOMPUTED}"
            )
        worst = check.recompute(settings, options.recompute)
        lines = [f"{column:<22} {value:.1e}" for column, value in worst.items()]
        show(options, worst, "largest relative difference per feature\n" + "\n".join(lines))
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
    show(
        options,
        diagnosis.as_document(),
        f"database        ok, queries in {', '.join(f'{ms:g} ms' for ms in milliseconds.values())}\n"
        f"latest bar      {check.with_age(found['latest_bar'])}\n"
        f"symbols         {found['symbols']}, without bars: {names(found['symbols_without_bars'])}\n"
        f"no new bars     for {SILENT_SESSIONS} sessions (halted, delisted or renamed?): {names(silent)}\n"
        f"stale features  {names(found['symbols_with_stale_features'])}\n"
        f"features of the last day  {found['features_of_the_last_day']}\n"
        f"missing bars    of the last {check.CHECKED_SESSIONS} sessions: {listing(missing)}\n"
        f"Yahoo lacks     (or the exchange was closed: exchange.special_days): {listing(withheld)}\n"
        f"quarantine      {found['quarantined_bars']} refused bars; `quarantine list` shows them\n"
        f"last backup     {check.with_age(found['last_backup'])}\n"
        f"{system}",
    )
    return 1 if found["symbols_without_bars"] else 0


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


def _quarantine(options: argparse.Namespace, settings: Settings) -> int:
    from include.mltrading.configuration.symbols import parse_symbols
    from include.mltrading.operations import quarantine

    symbols = None if options.symbol is None else parse_symbols(options.symbol.split(","))
    timestamp = instant(options.timestamp, "--timestamp")
    if options.action == "list":
        rows = quarantine.listed(settings, symbols, timestamp, options.all)
        lines = [
            f"{row['symbol']:<12} {row['timestamp']:%Y-%m-%dT%H:%M}Z  {row['id']}  {row['reason']}  "
            f"({_prices(row['payload'])})"
            + ("  another bar is stored" if row["stored"] and not row["released_at"] else "")
            + ("  released" if row["released_at"] else "")
            for row in rows
        ]
        show(options, rows, "\n".join([*lines, f"{len(rows)} refused bars"]))
        return 0
    if symbols is None or len(symbols) != 1 or timestamp is None:
        raise UsageError(
            "quarantine release needs one --symbol and a --timestamp, as `quarantine list` shows"
        )
    bar = quarantine.release(settings, symbols[0], timestamp, options.id)
    show(
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
        show(options, {"sent": sent}, f"sent {len(sent)} mails to {', '.join(commands.addressees(settings))}")
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
    show(options, rows, "\n".join([*lines, f"{len(rows)} alerts"]))
    return 0
