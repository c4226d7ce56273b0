"""What is wrong with the collected bars: refused, missing, withheld, silent symbols, splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta

from include.mltrading.alerts.render import counted, in_new_york
from include.mltrading.alerts.store import Alert, Details, Item, open_alert, open_alerts, report, resolve
from include.mltrading.configuration.deployments import Deployments
from include.mltrading.market.calendar import last_sessions
from include.mltrading.market.splits import TAKEN_BACK
from include.mltrading.pipeline.quality import (
    SESSIONS,
    SILENT_SESSIONS,
    Quality,
    UndecidedSplit,
    missing_bars,
    silent_symbols,
    withheld_hours,
    without,
)
from include.mltrading.pipeline.run import Run
from include.mltrading.pipeline.window import earliest
from include.mltrading.store.connection import Connection
from include.mltrading.store.queries import query


def quality_alerts(
    connection: Connection, deployments: Deployments, run: Run, asked: Sequence[str], quality: Quality
) -> None:
    """Tell of refused bars, and of splits that were applied or cannot be decided. asked: in this run."""
    tick = in_new_york(run.window_end)
    if quality.refused:
        details = Details(
            "Look at them with `python -m include.mltrading quarantine list`; release what is true.",
            [("Run", run.run_id), ("Works up to", tick)],
            "Refused bars, by symbol",
            [Item(f"{symbol}: {count}") for symbol, count in quality.refused.items()],
        )
        alert = Alert(
            f"bars_refused:{run.dag_id}:{run.run_id}", "bars_refused",
            f"{sum(quality.refused.values())} bars of {counted(quality.refused, 'symbol')} refused",
            details, run.dag_id, run.run_id,
        )  # fmt: skip
        open_alert(connection, alert, deployments.alerts)
    for split in quality.splits:
        details = Details(
            "Nothing, if that is true (look at the company's news): history stands on one basis.",
            [("Symbol", split.symbol), ("Split", f"{split.ratio:g} for 1 on {split.ex_date}"),
             ("Seen by", split.reason), ("Bars restated", str(split.bars)), ("Run", run.run_id)],
        )  # fmt: skip
        taken_back = split.reason == TAKEN_BACK
        alert = Alert(
            f"split_applied:{split.symbol}:{split.ex_date}{':back' if taken_back else ''}", "split_applied",
            f"{split.symbol} split {TAKEN_BACK if taken_back else f'{split.ratio:g} for 1'}, "
            f"{split.bars} bars restated",
            details, run.dag_id, run.run_id,
        )  # fmt: skip
        open_alert(connection, alert, deployments.alerts)
    undecided: dict[str, Alert | None] = {
        f"split_undecided:{split.symbol}:{split.ex_date}": _undecided(split, run)
        for split in quality.undecided
    }
    # A run knows nothing of symbols that it was not asked for.
    over = {it.key: None for it in open_alerts(connection, ["split_undecided"]) if _symbol(it.key) in asked}
    report(connection, over | undecided, deployments.alerts)


def _symbol(key: str) -> str:
    """Which symbol an alert is about whose key is its kind, the symbol, and more."""
    return key.split(":")[1]


def end_alerts_of_others(connection: Connection, universe: Sequence[str]) -> None:
    """Nobody asks any more for a symbol that has left the symbols file: what was told of it ends quietly."""
    told = open_alerts(connection, ["history_differs", "split_undecided", "symbol_silent"])
    resolve(connection, [it.key for it in told if _symbol(it.key) not in universe], quietly=True)


def _undecided(split: UndecidedSplit, run: Run) -> Alert:
    details = Details(
        "Compare the prices around the ex-date with another source. Once Yahoo serves them without a jump, "
        f"`python -m include.mltrading reload --symbols {split.symbol}` puts them in place.",
        [
            ("Symbol", split.symbol),
            ("Split", f"{split.ratio:g} for 1 on {split.ex_date}"),
            ("Run", run.run_id),
        ],
    )
    return Alert(
        f"split_undecided:{split.symbol}:{split.ex_date}", "split_undecided",
        f"{split.symbol}: on which side of its split of {split.ratio:g} for 1 bars stand cannot be told",
        details, run.dag_id, run.run_id,
    )  # fmt: skip


def silent_alerts(
    connection: Connection, deployments: Deployments, run: Run, asked: Sequence[str], universe: Sequence[str]
) -> list[str]:
    """Tell of symbols that have no new bars any more; those of which it was told. asked: in this run."""
    rows = connection.execute(query("bars/newest_bars"), {"symbols": list(universe)})
    newest = {symbol: start for symbol, start, _ in rows}
    found = silent_symbols(newest, run.window_end)
    told = [it.details.symbols[0] for it in open_alerts(connection, ["symbol_silent"])]
    for symbol in found:
        # Nobody can say of one that was not asked for that Yahoo has no bars of it.
        if symbol not in told and symbol in asked:
            details = Details(
                "Look at the company's news. Delisted: take it from the symbols file; renamed: put the new "
                "name into it; halted: nothing, runs go on asking.",
                [("Symbol", symbol), ("Newest bar", in_new_york(newest[symbol])), ("Run", run.run_id),
                 ("Works up to", in_new_york(run.window_end))],
                symbols=[symbol],
            )  # fmt: skip
            alert = Alert(
                _silent_key(symbol), "symbol_silent",
                f"{symbol}: no new bar for {SILENT_SESSIONS} sessions: halted, delisted or renamed?",
                details, run.dag_id, run.run_id,
            )  # fmt: skip
            open_alert(connection, alert, deployments.alerts)
            told.append(symbol)
    # Where most are silent, it is not known of any that it is its own silence, nor that this is over.
    since = last_sessions(SILENT_SESSIONS, run.window_end)[0].open
    back = [symbol for symbol in told if (start := newest.get(symbol)) and start >= since]
    resolve(connection, [_silent_key(symbol) for symbol in back])
    return [symbol for symbol in told if symbol not in back]


def _silent_key(symbol: str) -> str:
    return f"symbol_silent:{symbol}"


def missing_alerts(
    connection: Connection,
    deployments: Deployments,
    run: Run,
    asked: set[str],
    failed: set[str],
    silent: list[str],
    universe: Sequence[str],
) -> None:
    """Tell of bars that are missing, and of hours that Yahoo lacks for many symbols."""
    late_from = run.window_end - timedelta(minutes=deployments.alerts.thresholds.missing_bars_after_minutes)
    delay = timedelta(minutes=deployments.pipeline.finality_delay_minutes)
    symbols = [symbol for symbol in universe if symbol not in silent]
    served = [symbol for symbol in symbols if symbol not in failed]
    days = {session.day for session in last_sessions(SESSIONS, late_from)}
    told = {date.fromisoformat(it.key.split(":")[1]) for it in open_alerts(connection, ["bars_withheld"])}
    lost = {day for day in told if day < earliest().date()}
    resolve(connection, [_withheld_key(day) for day in lost], quietly=True)
    withheld = withheld_hours(connection, served, days | told - lost, late_from, delay)
    # A run for a few symbols says nothing about Yahoo.
    if 2 * len(asked & set(served)) >= len(symbols):
        alerts = {
            _withheld_key(day): _withheld(run, day, withheld[day], len(served)) if day in withheld else None
            for day in days | told - lost
        }
        report(connection, alerts, deployments.alerts)
    else:
        withheld = {day: hours for day, hours in withheld.items() if day in told}
    missing = without(missing_bars(connection, symbols, late_from, finality_delay=delay), withheld)
    lacking = sorted({hole.symbol for hole in missing})
    details = Details(
        "Usually none: runs ask again, ever more seldom, for as long as Yahoo serves them. If Yahoo has them "
        "but we do not, run `python -m include.mltrading collect --symbols … --start …`.",
        [("Run", run.run_id), ("Works up to", in_new_york(run.window_end))],
        "Stored of expected bars, by symbol and session",
        [Item(f"{hole.symbol} {hole.day}: {hole.stored} of {hole.expected}") for hole in missing],
        lacking,
    )
    number = sum(hole.expected - hole.stored for hole in missing)
    alert = Alert(
        "bars_missing", "bars_missing", f"{number} bars of {counted(lacking, 'symbol')} are missing",
        details, run.dag_id, run.run_id,
    )  # fmt: skip
    if not missing and (silent or withheld):
        # What is left of it has its own alert; nobody needs to hear that this one is over.
        resolve(connection, ["bars_missing"], quietly=True)
    report(connection, {"bars_missing": alert if missing else None}, deployments.alerts)


def _withheld_key(day: date) -> str:
    return f"bars_withheld:{day}"


def _withheld(run: Run, day: date, hours: Mapping[datetime, Sequence[str]], total: int) -> Alert:
    symbols = sorted({symbol for names in hours.values() for symbol in names})
    details = Details(
        "Usually none: runs ask again, ever more seldom, for as long as Yahoo serves them. Where Yahoo's own "
        "chart shows them, run `python -m include.mltrading collect --start …`.",
        [("Session", str(day)), ("Run", run.run_id), ("Works up to", in_new_york(run.window_end))],
        "Symbols without the bar, by hour",
        [Item(f"{in_new_york(hour)}: {len(names)} of {total}") for hour, names in sorted(hours.items())],
        symbols,
    )
    return Alert(
        _withheld_key(day), "bars_withheld",
        f"Yahoo lacks {counted(hours, 'hour')} of {day} for {counted(symbols, 'symbol')}",
        details, run.dag_id, run.run_id,
    )  # fmt: skip
