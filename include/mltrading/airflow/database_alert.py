"""When the market database itself is out of reach: told by Airflow's own memory."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from include.mltrading.airflow import compat
from include.mltrading.airflow.connection import libpq_keywords
from include.mltrading.airflow.delivery import hung, send_one
from include.mltrading.airflow.facts import RunFacts
from include.mltrading.configuration.deployments import Deployments
from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import DatabaseRefusedError, DatabaseUnreachableError

if TYPE_CHECKING:
    from include.mltrading.alerts.store import Alert
    from include.mltrading.store.connection import Connection

# What must be remembered while the market database cannot be asked: an Airflow variable.
_NOTE = "mltrading_database_alert"
_CLAIM_SECONDS = 60


def database_failed(run: RunFacts | None, text: str, *, refused: bool, deployments: Deployments) -> None:
    """Mail that the market database cannot be reached, once per run and quiet period."""
    from include.mltrading.alerts.render import compose
    from include.mltrading.alerts.store import Due
    from include.mltrading.configuration.alert_kinds import MANNERS, Kind

    kind: Kind = "database_refused" if refused else "database_unreachable"
    now = datetime.now(UTC)
    with compat.locked_note(_NOTE) as note:
        state = json.loads(note.text or "{}")
        state.setdefault("since", now.isoformat())
        runs = state.setdefault("runs", [])
        known = run is None or run.run_id in runs
        if run is not None and not known:
            runs.append(run.run_id)
        # A login that is refused is news also while people know that the server was away.
        sent_at = _instant(state.get("told", {}).get(kind))
        claimed = _instant(state.get("claimed_at"))
        quiet = sent_at is not None and (known or now < sent_at + deployments.alerts.quiet(kind))
        mine = not quiet and (claimed is None or now > claimed + timedelta(seconds=_CLAIM_SECONDS))
        if mine:
            state["claimed_at"] = now.isoformat()
        state |= {"kind": kind, "text": text}
        note.text = json.dumps(state)
        since = datetime.fromisoformat(state["since"])
    if not mine:
        return
    alert = _database_alert(kind, text, runs)
    due = Due(
        alert.details, 0, kind, MANNERS[kind].severity, alert.subject, since, None, True, sent_at
    )  # fmt: skip
    began = time.monotonic()
    sent = send_one(compose(due, deployments.alerts.addressees, ""))
    with compat.locked_note(_NOTE) as note:
        state = json.loads(note.text or "{}")
        if sent or not hung(began):
            state.pop("claimed_at", None)
        if sent:
            state.setdefault("told", {})[kind] = datetime.now(UTC).isoformat()
        note.text = json.dumps(state)


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _database_alert(kind: Any, text: str, runs: list[str]) -> Alert:
    from include.mltrading.alerts.store import Alert, Details

    if kind == "database_refused":
        subject = "the market database refuses the login"
        next_step = "Correct the connection mltrading_db; find out who changed the password or the role."
    else:
        subject = "the market database cannot be reached"
        next_step = (
            "Start the server, or correct the connection mltrading_db. Runs try again by themselves, and the "
            "next one closes the gap."
        )
    facts = [("Answer", text), ("Runs so far", ", ".join(runs) or "none")]
    details = Details(next_step, facts, runs=runs)
    return Alert(kind, kind, subject, details)


def _database_is_back(connection: Connection) -> None:
    from include.mltrading.alerts.store import record_past

    if not is_remembered():
        return
    with compat.locked_note(_NOTE) as note:
        state, note.text = json.loads(note.text or "{}"), ""
    if state:
        sent_at = _instant(max(state.get("told", {}).values(), default=None))
        since = datetime.fromisoformat(state["since"])
        record_past(connection, _database_alert(state["kind"], state["text"], state["runs"]), since, sent_at)


def is_remembered() -> bool:
    """Whether the market database was out of reach when it was last tried."""
    return compat.has_note(_NOTE)


@contextmanager
def market_database(run: RunFacts | None, deployments: Deployments) -> Iterator[Connection]:
    """A connection to the market database; when there is none, that is told, and the block is left."""
    from psycopg.conninfo import make_conninfo

    from include.mltrading.store.connection import connect

    try:
        connection = connect(Settings(database_url=make_conninfo(**libpq_keywords())))
    except (DatabaseUnreachableError, DatabaseRefusedError) as error:
        refused = isinstance(error, DatabaseRefusedError)
        database_failed(run, str(error), refused=refused, deployments=deployments)
        raise
    with connection:
        _database_is_back(connection)
        yield connection
