"""What the tests of alerts share: an alert, time that passes, what a run leaves behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mail_catcher import MailCatcher

from include.mltrading.alerts import checks
from include.mltrading.alerts.store import Alert, Details, Item, open_alerts
from include.mltrading.configuration.alert_kinds import MANNERS, Kind
from include.mltrading.configuration.deployments import COLLECTION, Deployments, load_deployments
from include.mltrading.configuration.settings import Settings
from include.mltrading.market.calendar import served_bars
from include.mltrading.pipeline.quality import Quality
from include.mltrading.pipeline.run import Run
from include.mltrading.store.connection import Connection, connect

SYMBOLS = ["AAPL", "MSFT"]


@pytest.fixture
def market(settings: Settings) -> Iterator[Connection]:
    with connect(settings) as connection:
        yield connection


@pytest.fixture
def catcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[MailCatcher]:
    with MailCatcher() as served:
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", served.connection)
        yield served


@pytest.fixture
def deployments() -> Deployments:
    return load_deployments(Settings.deployments_file)


def changed(deployments: Deployments, *, quiet: int | None = None, **thresholds: float) -> Deployments:
    """With another quiet period (minutes) for every kind, and other thresholds."""
    alerts = deployments.alerts
    if quiet is not None:
        alerts = alerts.model_copy(update={"quiet_minutes": dict.fromkeys(MANNERS, quiet)})
    limits = alerts.thresholds.model_copy(update=thresholds)
    return deployments.model_copy(update={"alerts": alerts.model_copy(update={"thresholds": limits})})


def alert(kind: Kind = "data_stale", key: str = "", **others: Any) -> Alert:
    details = Details(
        "look at it", [("Run", "run 1")], "Symbols", [Item("AAPL: old", "http://h/log")], ["AAPL"]
    )
    return Alert(key or kind, kind, "bars are stale", details, **others)


def pass_time(market: Connection, minutes: int) -> None:
    """Let everything recorded lie so much further back."""
    market.execute(
        "UPDATE alerts SET opened_at = opened_at - %(t)s, last_seen_at = last_seen_at - %(t)s,"
        " resolved_at = resolved_at - %(t)s, due_at = due_at - %(t)s, sent_at = sent_at - %(t)s,"
        " recovery_due_at = recovery_due_at - %(t)s, claimed_until = claimed_until - %(t)s",
        {"t": timedelta(minutes=minutes)},
    )


def kinds(market: Connection) -> list[str]:
    """Of all alerts ever recorded, in order."""
    return [row[0] for row in market.execute("SELECT kind FROM alerts ORDER BY id")]


@pytest.fixture
def here(settings: Settings, tmp_path: Path) -> Settings:
    """The settings with a universe of two symbols."""
    path = tmp_path / "symbols.txt"
    path.write_text("\n".join(SYMBOLS) + "\n")
    return dataclasses.replace(settings, symbols_file=path)


RUN = Run(COLLECTION, "run 1", 1, datetime.now(UTC))
NOTHING = Quality([], {}, [], [])


def record_tries(market: Connection, *statuses: str, symbols: Sequence[str] = SYMBOLS) -> None:
    for symbol, status in zip(symbols, statuses, strict=True):
        market.execute(
            "INSERT INTO processing_history (dag_id, run_id, step, symbol, try, correlation_id, window_end,"
            " finished_at, status) VALUES (%s, 'run 1', 'collect_symbol', %s, 1, 'c', now(), now(), %s)"
            " ON CONFLICT (dag_id, run_id, step, symbol, try) DO UPDATE SET status = excluded.status",
            (COLLECTION, symbol, status),
        )


def store_recent_bars(market: Connection, less: int = 0) -> None:
    """Every final bar of the last days, less the newest of AAPL that are due."""
    now = datetime.now(UTC)
    due = [start for start, end in served_bars(now - timedelta(days=10), now) if end <= now]
    for symbol, starts in (("AAPL", due[: len(due) - less]), ("MSFT", due)):
        with market.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO market_data VALUES (%s, %s, 1, 1, 1, 1, 1, true, 'simulated')",
                [(symbol, start) for start in starts],
            )


def left_behind(
    market: Connection, here: Settings, deployments: Deployments, quality: Quality | None = NOTHING
) -> list[str]:
    """The kinds that are open after a run's last check."""
    checks.after_publish(here, deployments, RUN, "collect_symbol", SYMBOLS, quality)
    return [it.kind for it in open_alerts(market)]


@pytest.fixture
def tolerant(deployments: Deployments) -> Deployments:
    """What this machine's memory and disks are like is of no concern."""
    return changed(deployments, memory_free_share=1e-6, disk_free_share=1e-6, missing_bars_after_minutes=0)
