"""What runs leave behind, looked at by the runs themselves and told as alerts.

A check that cannot be made is logged and never stops a run.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from include.mltrading.alerts.data import end_alerts_of_others, missing_alerts, quality_alerts, silent_alerts
from include.mltrading.alerts.guard import never_in_the_way
from include.mltrading.alerts.machine import connections, disks, memory, timeouts
from include.mltrading.alerts.render import in_new_york
from include.mltrading.alerts.store import Alert, Details, open_alert, report, resolve
from include.mltrading.configuration.deployments import Deployments
from include.mltrading.configuration.settings import Settings
from include.mltrading.configuration.symbols import read_symbols_file
from include.mltrading.errors import (
    EditedMigrationError,
    MixedSourcesError,
    MLTradingError,
    OtherHistoryError,
    YahooUnreachableError,
)
from include.mltrading.pipeline.quality import Quality
from include.mltrading.pipeline.run import Run
from include.mltrading.pipeline.runner import Outcome
from include.mltrading.pipeline.steps import COLLECT
from include.mltrading.store import ledger
from include.mltrading.store.connection import connect
from include.mltrading.store.queries import query

YAHOO_KEY = "yahoo_unreachable"
# So many symbols in a row without an answer are Yahoo's failure, fewer are theirs.
_ENOUGH = 5


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
                quality_alerts(connection, deployments, run, symbols, quality)
            with never_in_the_way():
                universe = read_symbols_file(settings.symbols_file)
                end_alerts_of_others(connection, universe)
                if run.is_live() and not (results and len(failed) == len(results)):
                    silent = silent_alerts(connection, deployments, run, symbols, universe)
                    missing_alerts(connection, deployments, run, set(symbols), failed, silent, universe)
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
            f"disk_low:{machine}": lambda: disks(deployments, machine),
            f"timeouts_high:{step}": lambda: timeouts(deployments, run, step, slow, len(symbols)),
            "connections_high": lambda: connections(connection, deployments),
            f"memory_low:{machine}": lambda: memory(deployments, machine),
        }
        for key, check in checks.items():
            # One that cannot be made says nothing, and does not keep the others from it.
            with never_in_the_way():
                report(connection, {key: check()}, deployments.alerts)


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
