"""What is wrong, as alerts: with the data, the vendor, the database and the machine.

Every check is made by the runs themselves. One that cannot be made is logged and never stops a run.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path

import psycopg

from include.mltrading.alerts.render import in_new_york
from include.mltrading.alerts.store import Alert, Details, Item, open_alert, open_alerts, report, resolve
from include.mltrading.configuration.deployments import DagId, Deployments
from include.mltrading.configuration.settings import PROJECT_ROOT, Settings
from include.mltrading.configuration.symbols import read_symbols_file
from include.mltrading.errors import (
    EditedMigrationError,
    MixedSourcesError,
    MLTradingError,
    OtherHistoryError,
    YahooUnreachableError,
)
from include.mltrading.features.definitions import FEATURE_VERSION
from include.mltrading.market.calendar import bars_of, is_trading_time, last_sessions, market_time_ago
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
from include.mltrading.pipeline.runner import Outcome
from include.mltrading.pipeline.steps import COLLECT
from include.mltrading.pipeline.window import earliest
from include.mltrading.store import ledger
from include.mltrading.store.connection import Connection, connect, database_errors
from include.mltrading.store.queries import query

LOAD: DagId = "complete-data-and-features-ondemand"
COLLECTION: DagId = "yahoo-production-data-collection"
FEATURES_DAG: DagId = "feature-engineering-production-subprocess"
YAHOO_KEY = "yahoo_unreachable"
# So many symbols in a row without an answer are Yahoo's failure, fewer are theirs.
_ENOUGH = 5
# The last tick of a day comes with the close; its runs are over within the hour.
_AFTER_CLOSE = timedelta(hours=1)

log = logging.getLogger(__name__)


@contextmanager
def never_in_the_way() -> Iterator[None]:
    """What fails in the block is logged: telling of trouble must not make any."""
    try:
        yield
    except (MLTradingError, psycopg.Error) as error:
        text = error if isinstance(error, MLTradingError) else database_errors(error)
        log.warning("an alert could not be looked for or told: %s", text)
    except Exception as error:
        log.warning("an alert could not be looked for or told: %s", error, exc_info=True)


def after_publish(
    settings: Settings,
    deployments: Deployments,
    run: Run,
    step: str,
    symbols: Sequence[str],
    quality: Quality | None,
) -> None:
    """Tell what a run leaves behind. quality: of a collecting run."""
    with never_in_the_way(), connect(settings) as connection:
        results = ledger.latest(connection, run.dag_id, run.run_id, step, symbols)
        if quality is not None:
            # What a run did not get is told by its failure.
            failed = {symbol for symbol, result in results.items() if result.status != ledger.OK}
            with never_in_the_way():
                _of_quality(connection, deployments, run, symbols, quality)
            with never_in_the_way():
                universe = read_symbols_file(settings.symbols_file)
                _out_of_universe(connection, universe)
                if run.is_live() and not (results and len(failed) == len(results)):
                    silent = _silent(connection, deployments, run, symbols, universe)
                    _missing(connection, deployments, run, set(symbols), failed, silent, universe)
        served = [symbol for symbol, result in results.items() if result.status == ledger.OK]
        if step == COLLECT and served:
            resolve(connection, [YAHOO_KEY])
        if step == COLLECT:
            resolve(connection, [_history_key(symbol) for symbol in served])
        # The step begins with a check of it.
        resolve(connection, ["migration_edited", *(["sources_mixed"] if served else [])])
        slow = [symbol for symbol, result in results.items() if result.status == "timeout"]
        machine = socket.gethostname()
        checks: dict[str, Callable[[], Alert | None]] = {
            f"disk_low:{machine}": lambda: _disks(deployments, machine),
            f"timeouts_high:{step}": lambda: _timeouts(deployments, run, step, slow, len(symbols)),
            "connections_high": lambda: _connections(connection, deployments),
            f"memory_low:{machine}": lambda: _memory(deployments, machine),
        }
        for key, check in checks.items():
            # One that cannot be made says nothing, and does not keep the others from it.
            with never_in_the_way():
                report(connection, {key: check()}, deployments.alerts)


def _of_quality(
    connection: Connection, deployments: Deployments, run: Run, asked: Sequence[str], quality: Quality
) -> None:
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
            f"{sum(quality.refused.values())} bars of {_count(quality.refused, 'symbol')} refused",
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


def _out_of_universe(connection: Connection, universe: Sequence[str]) -> None:
    """Nobody asks any more for a symbol that has left the symbols file: what was told of it ends quietly."""
    told = open_alerts(connection, ["history_differs", "split_undecided", "symbol_silent"])
    resolve(connection, [it.key for it in told if _symbol(it.key) not in universe], quietly=True)


def _silent(
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


def _missing(
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
        "bars_missing", "bars_missing", f"{number} bars of {_count(lacking, 'symbol')} are missing",
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
        f"Yahoo lacks {_count(hours, 'hour')} of {day} for {_count(symbols, 'symbol')}",
        details, run.dag_id, run.run_id,
    )  # fmt: skip


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


def _timeouts(deployments: Deployments, run: Run, step: str, slow: list[str], total: int) -> Alert | None:
    if not total or len(slow) / total <= deployments.alerts.thresholds.timeouts_share:
        return None
    details = Details(
        "Look at the machine's load and at the database's; raise MLTRADING_SYMBOL_SECONDS only when both "
        "are well.",
        [("Run", run.run_id), ("Too slow", f"{len(slow)} of {total}"),
         ("Tolerated", f"{deployments.alerts.thresholds.timeouts_share:.0%}")],
        "Symbols", [Item(symbol) for symbol in slow], slow,
    )  # fmt: skip
    return Alert(
        f"timeouts_high:{step}", "timeouts_high",
        f"{len(slow)} of {total} symbols took too long ({step})", details, run.dag_id, run.run_id,
    )  # fmt: skip


def _connections(connection: Connection, deployments: Deployments) -> Alert | None:
    row = connection.execute(query("alerts/own_connections")).fetchone()
    share = deployments.alerts.thresholds.connections_share
    if row is None or row[0] <= share * row[1]:
        return None
    used, limit = row
    details = Details(
        "See who holds them: `SELECT pid, application_name, state, query FROM pg_stat_activity`; end what is "
        "idle, or raise the role's CONNECTION LIMIT.",
        [("In use", f"{used} of {limit}"), ("Tolerated", f"{share:.0%}")],
    )
    return Alert(
        "connections_high", "connections_high", f"{used} of {limit} database connections are in use", details
    )


def _memory(deployments: Deployments, machine: str) -> Alert | None:
    share = deployments.alerts.thresholds.memory_free_share
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    kilobytes = {words[0].rstrip(":"): int(words[1]) for words in lines}
    free, total = kilobytes["MemAvailable"], kilobytes["MemTotal"]
    if free >= share * total:
        return None
    details = Details(
        "See what uses it: `ps aux --sort=-rss | head`. Fewer tasks at a time (the pools) need less.",
        [("Free", f"{free / 1e6:.1f} of {total / 1e6:.1f} GB ({free / total:.0%})"),
         ("Needed", f"{share:.0%}"), ("Machine", machine)],
    )  # fmt: skip
    return Alert(
        f"memory_low:{machine}", "memory_low", f"{free / total:.0%} of memory free on {machine}", details
    )


def _disks(deployments: Deployments, machine: str) -> Alert | None:
    share = deployments.alerts.thresholds.disk_free_share
    folders = {PROJECT_ROOT, Path(tempfile.gettempdir()), Path(os.environ.get("MLTRADING_STATE_DIR", "/"))}
    full: dict[int, str] = {}
    for folder in sorted(folders):
        usage = shutil.disk_usage(folder)
        if usage.free < share * usage.total:
            text = f"{folder}: {usage.free / 1e9:.1f} of {usage.total / 1e9:.1f} GB free"
            full.setdefault(folder.stat().st_dev, text)
    if not full:
        return None
    details = Details(
        "Delete old task logs and old backups, or enlarge the disk, before writing stops.",
        [("Needed", f"{share:.0%} free"), ("Machine", machine)],
        "Disks", [Item(text) for text in full.values()],
    )  # fmt: skip
    return Alert(f"disk_low:{machine}", "disk_low", f"a disk of {machine} is nearly full", details)


def after_batch(
    settings: Settings, deployments: Deployments, run: Run, outcomes: Sequence[Outcome], asked: int
) -> None:
    """Tell what a batch of symbols met that is not the symbols' own failure, or that only people can mend.

    asked: symbols of the run.
    """
    failures = {outcome.failure: outcome.error or "" for outcome in outcomes if outcome.failure}
    unreachable = failures.get(YahooUnreachableError.__name__)
    mixed = failures.get(MixedSourcesError.__name__)
    differing = [it for it in outcomes if it.failure == OtherHistoryError.__name__]
    if unreachable is None and mixed is None and not differing:
        return
    with never_in_the_way(), connect(settings) as connection:
        for outcome in differing:
            open_alert(
                connection, _history_differs(run, outcome.symbol, outcome.error or ""), deployments.alerts
            )
        if mixed is not None:
            open_alert(connection, _mixed(run, mixed), deployments.alerts)
        if unreachable is not None:
            served, failed = connection.execute(
                query("ledger/symbols_tried"), {"dag_id": run.dag_id, "run_id": run.run_id, "step": COLLECT}
            ).fetchone() or (0, 0)
            if not served and failed >= min(_ENOUGH, asked):
                open_alert(connection, _unreachable(run, unreachable, failed), deployments.alerts)


def _history_key(symbol: str) -> str:
    return f"history_differs:{symbol}"


def _history_differs(run: Run, symbol: str, text: str) -> Alert:
    details = Details(
        "Look at the company's news and another source. If Yahoo is right, "
        f"`python -m include.mltrading reload --symbols {symbol}` puts the old bars away and loads Yahoo's; "
        "until then nothing is stored of it.",
        [("Symbol", symbol), ("Found", text), ("Run", run.run_id)],
        symbols=[symbol],
    )
    return Alert(
        _history_key(symbol), "history_differs", f"{symbol}: Yahoo's history is not the stored one",
        details, run.dag_id, run.run_id,
    )  # fmt: skip


def _mixed(run: Run, text: str) -> Alert:
    details = Details(
        "Correct MLTRADING_YAHOO_URL or the connection mltrading_db; nothing was written.",
        [("Refused", text), ("Run", run.run_id)],
    )
    return Alert(
        "sources_mixed", "sources_mixed", "simulated and real data would have met in one database",
        details, run.dag_id, run.run_id,
    )  # fmt: skip


def _unreachable(run: Run, text: str, failed: int) -> Alert:
    details = Details(
        "Look at the network and, where it is set, at MLTRADING_YAHOO_URL (`make smoke-live` asks for one "
        "symbol). Runs try again by themselves and close the gap.",
        [("Last answer", text), ("Run", run.run_id), ("Works up to", in_new_york(run.window_end)),
         ("So far", f"{failed} symbols failed, none served")],
    )  # fmt: skip
    return Alert(
        YAHOO_KEY, "yahoo_unreachable", "Yahoo cannot be reached", details, run.dag_id, run.run_id,
    )  # fmt: skip


def refused_schema(settings: Settings, deployments: Deployments, run: Run, error: MLTradingError) -> None:
    """Tell that a migration was edited; other errors of the schema are told with the run's failure."""
    if not isinstance(error, EditedMigrationError):
        return
    details = Details(
        "Restore the file from the repository and find out who edited it and why.",
        [("Found", str(error)), ("Run", run.run_id)],
    )
    alert = Alert(
        "migration_edited", "migration_edited", "an applied migration was edited", details,
        run.dag_id, run.run_id,
    )  # fmt: skip
    with never_in_the_way(), connect(settings) as connection:
        open_alert(connection, alert, deployments.alerts)


def freshness(
    connection: Connection, deployments: Deployments, symbols: Sequence[str], now: datetime
) -> None:
    """Tell of bars and features that are late in market time, and of a load that failed a day ago.

    Outside the hours in which the exchange trades, nothing becomes stale, but what was may be over.
    """
    looked_at = {
        f"data_stale:{COLLECTION}": _stale_bars(connection, deployments, symbols, now),
        f"data_stale:{FEATURES_DAG}": _stale_features(connection, deployments, symbols, now),
        f"data_stale:{LOAD}": _failed_load(connection, deployments, now),
    }
    if not is_trading_time(now, _AFTER_CLOSE):
        looked_at = {key: alert for key, alert in looked_at.items() if alert is None or alert.dag_id == LOAD}
    report(connection, looked_at, deployments.alerts)


def _expected_bar(deployments: Deployments, dag_id: DagId, now: datetime) -> datetime:
    """Start of the newest bar that ended so long ago, in market time, that the DAG should be through."""
    deployment = deployments.deployments[dag_id]
    threshold = timedelta(hours=deployment.alert_threshold_hours)
    delay = timedelta(minutes=deployments.pipeline.finality_delay_minutes)
    due = market_time_ago(threshold, now) - delay
    return max(start for session in last_sessions(2, due) for start, end in bars_of(session) if end <= due)


def _stale_bars(
    connection: Connection, deployments: Deployments, symbols: Sequence[str], now: datetime
) -> Alert | None:
    expected = _expected_bar(deployments, COLLECTION, now)
    rows = connection.execute(query("bars/newest_bars"), {"symbols": list(symbols)})
    silent = {it.details.symbols[0] for it in open_alerts(connection, ["symbol_silent"])}
    # A symbol that never had a bar is told by the failure of its collection, one that has no new ones once.
    behind = [
        (symbol, newest)
        for symbol, newest, _ in rows
        if newest is not None and newest < expected and symbol not in silent
    ]
    if not behind:
        return None
    return _stale(
        deployments, COLLECTION, f"bars of {_count(behind, 'symbol')} are stale",
        "See whether the collection is paused, runs and succeeds; trigger it by hand: it closes the gap.",
        expected, "Newest final bar, by symbol",
        [(symbol, f"{symbol}: {in_new_york(newest)}") for symbol, newest in behind],
    )  # fmt: skip


def _stale_features(
    connection: Connection, deployments: Deployments, symbols: Sequence[str], now: datetime
) -> Alert | None:
    expected = _expected_bar(deployments, FEATURES_DAG, now)
    threshold = timedelta(hours=deployments.deployments[FEATURES_DAG].alert_threshold_hours)
    behind = connection.execute(
        query("features/features_behind"),
        {
            "symbols": list(symbols),
            "feature_version": FEATURE_VERSION,
            "expected": expected,
            "stored_before": now - threshold,
        },
    ).fetchall()
    if not behind:
        return None
    return _stale(
        deployments, FEATURES_DAG, f"features of {_count(behind, 'symbol')} are stale",
        "See whether the features DAG is paused, runs and succeeds; trigger it once by hand: it computes all "
        "that is missing.",
        expected, "Bars without features, by symbol",
        [(symbol, f"{symbol}: {bars}, the newest {in_new_york(newest)}") for symbol, bars, newest in behind],
    )  # fmt: skip


def _stale(
    deployments: Deployments, dag_id: DagId, subject: str, next_step: str,
    expected: datetime, heading: str, lines: list[tuple[str, str]],
) -> Alert:  # fmt: skip
    deployment = deployments.deployments[dag_id]
    details = Details(
        next_step,
        [("Pipeline", deployment.display_name), ("Expected by now", f"the bar of {in_new_york(expected)}"),
         ("Tolerated", f"{deployment.alert_threshold_hours:g} hours of trading")],
        heading, [Item(text) for _, text in lines], [symbol for symbol, _ in lines],
    )  # fmt: skip
    return Alert(f"data_stale:{dag_id}", "data_stale", subject, details, dag_id)


def _failed_load(connection: Connection, deployments: Deployments, now: datetime) -> Alert | None:
    hours = deployments.deployments[LOAD].alert_threshold_hours
    failed = [
        alert
        for alert in open_alerts(connection, ["run_failed"])
        if alert.dag_id == LOAD and now - alert.opened_at > timedelta(hours=hours)
    ]
    if not failed:
        return None
    details = Details(
        "Look at why it failed, then clear it or trigger a new one.",
        [("Pipeline", deployments.deployments[LOAD].display_name), ("Run", str(failed[0].run_id)),
         ("Failed", in_new_york(failed[0].opened_at)), ("Tolerated", f"{hours:g} hours")],
    )  # fmt: skip
    return Alert(
        f"data_stale:{LOAD}", "data_stale",
        f"a load failed {hours:g} hours ago and none has succeeded since",
        details, LOAD, failed[0].run_id,
    )  # fmt: skip


def _count(things: Sized, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"
