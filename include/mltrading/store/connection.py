"""Connections to the market database: one short-lived connection for each process that needs one."""

from __future__ import annotations

import os
import time
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import (
    DatabaseError,
    DatabaseRefusedError,
    DatabaseUnreachableError,
    MLTradingError,
    UsageError,
)

Connection = psycopg.Connection[tuple[Any, ...]]

NOT_A_URL = (
    "MLTRADING_DATABASE_URL is not a libpq URL: write postgresql://user:password@host:5432/name, "
    "special characters of the password as %XX"
)

_LIBPQ_VARIABLES = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE")
_RETRY_SECONDS = 30.0
_CONNECT_TIMEOUT_SECONDS = 10
# The server answers these with "too many connections"; a slot becomes free when a neighbour is done.
_TOO_MANY = ("too many connections", "too many clients", "remaining connection slots")
_BAD_TIMEOUT = "bad value for connect_timeout"  # psycopg's words
# Trying again cannot help with these.
_REFUSED = (
    "authentication failed",
    "no password supplied",
    "does not exist",
    "permission denied",
    "no pg_hba.conf entry",
    # Of an option.
    '" for connection option "',
    ' value: "',
    "definition of service ",
    "invalid value for parameter ",
    "unrecognized configuration parameter ",
    _BAD_TIMEOUT,
)

_REMEDIES: dict[type[psycopg.Error], str] = {
    psycopg.errors.LockNotAvailable: (
        "another session holds what this one needs: let it end, or end it (docs/runbook.md: who waits for "
        "whom), then do this again"
    ),
    psycopg.errors.QueryCanceled: (
        "do this again when the database is less busy, or raise the statement_timeout that the role or the "
        "database has (the program sets none)"
    ),
}


def connect(settings: Settings) -> Connection:
    """An autocommit connection to the market database; transactions are opened explicitly.

    Waits up to 30 s for a slot while the server has too many connections. Raises UsageError when nothing
    says where the database is, DatabaseRefusedError when it refuses the login, DatabaseUnreachableError
    otherwise.
    """
    url = settings.database_url
    if url is None and not any(os.environ.get(name) for name in _LIBPQ_VARIABLES):
        raise UsageError(
            "no database: set MLTRADING_DATABASE_URL (postgresql://user:password@host:5432/name) "
            "or libpq's PGHOST, PGUSER, PGPASSWORD and PGDATABASE"
        )
    give_up = time.monotonic() + _RETRY_SECONDS
    while True:
        try:
            given = conninfo_to_dict(url or "")
            timeout = given.get("connect_timeout") or os.environ.get("PGCONNECT_TIMEOUT")
            return psycopg.connect(
                url or "",
                autocommit=True,
                connect_timeout=timeout or _CONNECT_TIMEOUT_SECONDS,
                fallback_application_name=given.get("fallback_application_name") or "mltrading",
                # A lost client, its machine too, must not hold a lock; a lost lock must not hold a task.
                options=(
                    "-c timezone=UTC -c lock_timeout=60s -c idle_in_transaction_session_timeout=300s "
                    "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3 "
                    + str(given.get("options") or os.environ.get("PGOPTIONS", ""))
                ),
            )
        except psycopg.ProgrammingError as error:
            if str(error).startswith(_BAD_TIMEOUT):
                raise _described(_line(error), url) from None
            # libpq's own words repeat the URL, password and all.
            raise UsageError(NOT_A_URL) from None
        except psycopg.OperationalError as error:
            message = _line(error)
            if any(text in message for text in _TOO_MANY) and time.monotonic() < give_up:
                time.sleep(0.5)
                continue
            raise _described(message, url) from None


def read_only(connection: Connection) -> Any:
    """A transaction that sees one state of the database and changes nothing."""
    connection.read_only = True
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    return connection.transaction()


def database_errors(error: psycopg.Error) -> MLTradingError:
    """A database error in one line: what the server said and, where known, the remedy."""
    message = _line(error)
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        return UsageError(
            f"{message}: the schema is not the program's; run `python -m include.mltrading migrate`"
        )
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return UsageError(f"{message}: grant the database user the right, or use the owner of the tables")
    remedy = next((f"; {text}" for kind, text in _REMEDIES.items() if isinstance(error, kind)), "")
    return DatabaseError(f"the database failed: {message}{remedy}")


def _described(message: str, url: str | None) -> MLTradingError:
    target = _target(url)
    if any(text in message for text in _REFUSED):
        return DatabaseRefusedError(
            f"{target} refuses the connection: {message}; correct user, password, database name and options "
            "in MLTRADING_DATABASE_URL (in Airflow: the connection mltrading_db)"
        )
    return DatabaseUnreachableError(
        f"{target} cannot be reached: {message}; start the server or correct MLTRADING_DATABASE_URL "
        "(in Airflow: the connection mltrading_db)"
    )


def _target(url: str | None) -> str:
    """Where the connection goes, without the password."""
    parts: dict[str, Any] = conninfo_to_dict(url or "")
    host = parts.get("host") or os.environ.get("PGHOST")
    host = host or parts.get("hostaddr") or os.environ.get("PGHOSTADDR") or "localhost"
    port = parts.get("port") or os.environ.get("PGPORT") or "5432"
    name = parts.get("dbname") or os.environ.get("PGDATABASE") or ""
    return f"database {name!r} at {host}:{port}"


def _line(error: Exception) -> str:
    """The first line of the server's own words; libpq repeats itself for each address tried."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
