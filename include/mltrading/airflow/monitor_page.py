"""What the pages of the market monitor show, as data; airflow2/ and airflow3/ serve them."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from airflow.providers.common.compat.sdk import AirflowException
from psycopg.conninfo import make_conninfo
from psycopg_pool import PoolTimeout

from include.mltrading.airflow.compat import newest_runs
from include.mltrading.airflow.connection import CONNECTION_ID, libpq_keywords
from include.mltrading.configuration.deployments import LOAD, Deployments, load_deployments
from include.mltrading.configuration.settings import PROJECT_ROOT, Settings
from include.mltrading.configuration.symbols import parse_symbol, read_symbols_file
from include.mltrading.errors import DatabaseRefusedError, MLTradingError, SchemaError, UsageError
from include.mltrading.monitor.figures import PARTS, Part
from include.mltrading.monitor.health import Word, health
from include.mltrading.monitor.runs import FinishedRuns
from include.mltrading.monitor.snapshot import snapshot
from include.mltrading.monitor.symbol import MOST_SESSIONS, symbol_page
from include.mltrading.store.connection import Connection
from include.mltrading.store.pool import ReadPool, SlowDatabaseError

MENU_ITEM = "Market Monitor"
PLUGINS = PROJECT_ROOT / "plugins"
# What the connection says goes before it.
_CONNECT = {"connect_timeout": "5", "fallback_application_name": "mltrading monitor"}
# A page must not wait for long, nor hold the database up.
_OPTIONS = (
    "-c timezone=UTC -c statement_timeout=5s -c lock_timeout=1s -c default_transaction_read_only=on "
    "-c idle_in_transaction_session_timeout=10s -c jit=off"
)
NEVER_STORED = {"Cache-Control": "no-store"}
_HEALTH_SECONDS = 10.0
FIRST_RUN = "the first run is under way; the numbers fill in as symbols are done"
_SESSIONS = 20
# The server is there, and too busy; anything else of psycopg's means that it is not, or not for us.
_SLOW = (SlowDatabaseError, psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable, PoolTimeout)

Answer = tuple[dict[str, Any], int]

log = logging.getLogger(__name__)


def kept_seconds(filename: str) -> int:
    """How long a browser may keep a file of plugins/static: what has its version in its name, half a day."""
    return 12 * 3600 if filename.startswith("vendor/") else 0


def asked_data(parts: str | None) -> Answer:
    """The data of the parts that an address names, such as `pipelines,health`; None: of all.

    Status 200, 503 with a state and a message in its place, or 400 when there is no such part.
    """
    asked, now = PARTS if parts is None else parts.split(","), datetime.now(UTC)
    if set(asked) <= set(PARTS):
        return monitor_data([part for part in PARTS if part in asked], now)
    message = f"parts: a list of {', '.join(PARTS)}"
    return {"state": "unknown", "as_of": now.isoformat(), "message": message}, 400


def asked_symbol(symbol: str, sessions: str | None) -> Answer:
    """The page of a symbol as data, of so many sessions; what is no number is the default."""
    try:
        count = min(max(int(sessions or _SESSIONS), 1), MOST_SESSIONS)
    except ValueError:
        count = _SESSIONS
    return symbol_data(symbol, count, datetime.now(UTC))


def health_answer() -> tuple[str, int]:
    """One word and its HTTP status: up with 200, stale or down with 503."""
    word = _HEALTH.word()
    return word, 200 if word == "up" else 503


def monitor_data(parts: list[Part], now: datetime) -> Answer:
    """The page's data and its HTTP status.

    state: ok, empty, first_run; misconfigured, no_schema, slow, down.
    """

    def look(at: _Sources) -> Answer:
        found = snapshot(at.connection, at.deployments, at.symbols, now, parts, at.finished).as_document()
        if found["state"] == "empty":
            name = at.deployments.deployments[LOAD].display_name
            found["message"] = f"the database is empty: trigger the DAG {name} to load the first bars"
        elif found["state"] == "first_run":
            found["message"] = FIRST_RUN
        return found, 200

    document, status = _answered(look, now)
    # The connection to the market database has been given back: the two are not held together.
    if "pipelines" in document:
        airflow_runs = newest_runs([pipeline["dag_id"] for pipeline in document["pipelines"]])
        for pipeline in document["pipelines"]:
            pipeline["airflow"] = airflow_runs[pipeline["dag_id"]]
    if document["state"] == "empty" and newest_runs([LOAD])[LOAD]["state"] in ("queued", "running"):
        # Somebody has triggered it, and no symbol has begun.
        document |= {"state": "first_run", "message": FIRST_RUN}
    return document, status


def symbol_data(text: str, sessions: int, now: datetime) -> Answer:
    """A symbol's page as data, and its HTTP status."""
    try:
        name = parse_symbol(text)
    except UsageError as error:
        return {"state": "unknown", "as_of": now.isoformat(), "message": str(error)}, 400

    def look(at: _Sources) -> Answer:
        page = symbol_page(at.connection, at.deployments, name, sessions, now)
        if name not in at.symbols and not page.bars["timestamp"]:
            message = f"{name} is not in the symbols file and has no bars in this range"
            return {"state": "unknown", "as_of": now.isoformat(), "message": message}, 404
        return page.as_document() | {"state": "ok"}, 200

    return _answered(look, now)


@dataclass(frozen=True)
class _Sources:
    """What a look needs. finished: for this process and this database."""

    connection: Connection
    deployments: Deployments
    symbols: list[str]
    finished: FinishedRuns


def _answered(look: Callable[[_Sources], Answer], now: datetime) -> Answer:
    """What `look` finds in the market database, or in one line why it could not."""
    common: dict[str, Any] = {"as_of": now.isoformat()}
    try:
        settings = Settings.from_environment()
        deployments = load_deployments(settings.deployments_file)
        symbols = read_symbols_file(settings.symbols_file)
    except MLTradingError as error:
        return common | {"state": "misconfigured", "message": str(error)}, 503
    common["refresh_seconds"] = deployments.dashboard.refresh_intervals.model_dump()
    try:
        pool, finished = _database()
        with pool.connection() as connection:
            found, status = look(_Sources(connection, deployments, symbols, finished))
    except SchemaError as error:
        return common | {"state": "no_schema", "message": str(error)}, 503
    except DatabaseRefusedError as error:  # the connection itself is wrong
        return common | {"state": "misconfigured", "message": str(error)}, 503
    except _SLOW as error:
        log.warning("The market database is too slow for the monitor: %s", error)
        message = "the market database is too slow to answer now; the web server's log has the reason"
        return common | {"state": "slow", "message": message}, 503
    except (psycopg.Error, AirflowException) as error:
        # Not to everybody who may look: the text can name hosts and users.
        log.warning("The market database does not answer: %s", error)
        message = (
            f"the market database does not answer: start it or correct the connection {CONNECTION_ID}; "
            "the web server's log has the reason"
        )
        return common | {"state": "down", "message": message}, 503
    return common | found, status


# One pool for each process: gunicorn's workers are forked before the first request.
_databases: dict[tuple[int, str], tuple[ReadPool, FinishedRuns]] = {}
_making = threading.Lock()


def _database() -> tuple[ReadPool, FinishedRuns]:
    """This process's pool for the connection as it is now, and what is known of the database behind it."""
    keywords = _CONNECT | libpq_keywords()
    keywords["options"] = f"{keywords.get('options', '')} {_OPTIONS}"
    key = (os.getpid(), make_conninfo(**keywords))
    with _making:
        if key not in _databases:
            for (pid, _), (old, _) in list(_databases.items()):
                if pid == os.getpid():
                    old.close()
            _databases.clear()
            _databases[key] = ReadPool(key[1]), FinishedRuns()
        return _databases[key]


class _Health:
    """The word, looked up at most every 10 s in each process: strangers cannot keep the database busy."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._word: Word = "down"
        self._until = 0.0

    def word(self) -> Word:
        # Who comes while somebody looks waits for that look's result.
        with self._lock:
            if time.monotonic() >= self._until:
                self._word = self._look()
                self._until = time.monotonic() + _HEALTH_SECONDS
            return self._word

    def _look(self) -> Word:
        try:
            settings = Settings.from_environment()
            deployments = load_deployments(settings.deployments_file)
            symbols = read_symbols_file(settings.symbols_file)
            pool, _ = _database()
            with pool.connection() as connection:
                return health(connection, deployments, symbols, datetime.now(UTC))
        except Exception as error:
            log.warning("The market database does not answer: %s", error)
            return "down"


_HEALTH = _Health()
