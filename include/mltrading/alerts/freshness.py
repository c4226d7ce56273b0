"""Bars and features that are late in market time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from include.mltrading.alerts.render import counted, in_new_york
from include.mltrading.alerts.store import Alert, Details, Item, open_alerts, report
from include.mltrading.configuration.deployments import COLLECTION, FEATURES, LOAD, DagId, Deployments
from include.mltrading.features.definitions import FEATURE_VERSION
from include.mltrading.market.calendar import is_trading_time
from include.mltrading.monitor.freshness import expected_bar
from include.mltrading.store.connection import Connection
from include.mltrading.store.queries import query

# The last tick of a day comes with the close; its runs are over within the hour.
_AFTER_CLOSE = timedelta(hours=1)


def freshness(
    connection: Connection, deployments: Deployments, symbols: Sequence[str], now: datetime
) -> None:
    """Tell of bars and features that are late in market time, and of a load that failed a day ago.

    Outside the hours in which the exchange trades, nothing becomes stale, but what was may be over.
    """
    looked_at = {
        f"data_stale:{COLLECTION}": _stale_bars(connection, deployments, symbols, now),
        f"data_stale:{FEATURES}": _stale_features(connection, deployments, symbols, now),
        f"data_stale:{LOAD}": _failed_load(connection, deployments, now),
    }
    if not is_trading_time(now, _AFTER_CLOSE):
        looked_at = {key: alert for key, alert in looked_at.items() if alert is None or alert.dag_id == LOAD}
    report(connection, looked_at, deployments.alerts)


def _stale_bars(
    connection: Connection, deployments: Deployments, symbols: Sequence[str], now: datetime
) -> Alert | None:
    expected = expected_bar(deployments, COLLECTION, now)
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
        deployments, COLLECTION, f"bars of {counted(behind, 'symbol')} are stale",
        "See whether the collection is paused, runs and succeeds; trigger it by hand: it closes the gap.",
        expected, "Newest final bar, by symbol",
        [(symbol, f"{symbol}: {in_new_york(newest)}") for symbol, newest in behind],
    )  # fmt: skip


def _stale_features(
    connection: Connection, deployments: Deployments, symbols: Sequence[str], now: datetime
) -> Alert | None:
    expected = expected_bar(deployments, FEATURES, now)
    threshold = timedelta(hours=deployments.deployments[FEATURES].alert_threshold_hours)
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
        deployments, FEATURES, f"features of {counted(behind, 'symbol')} are stale",
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
