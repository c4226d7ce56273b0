"""Applies airflow_settings.yaml to Airflow's metadata database; repeat it at will.

    python -m include.mltrading.airflow.apply_settings [FILE]

Creates what is missing, updates what differs, deletes nothing. What an AIRFLOW_CONN_… or AIRFLOW_VAR_…
variable provides is left alone, since Airflow would not look into its database for it. All of the file
is applied or, after an error, none of it. One line per entry tells what was done; values are never shown.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.fernet import InvalidToken

from include.mltrading.configuration.airflow_settings import (
    DEFAULT_FILE,
    AirflowSettings,
    ConnectionSetting,
    load_settings,
)
from include.mltrading.errors import DatabaseError, MLTradingError, SchemaError


@contextmanager
def _metadata_session() -> Iterator[tuple[Any, Any, Any, Any]]:
    """A session on Airflow's metadata database and its models Connection, Pool and Variable.

    The one place that depends on Airflow's major version. Commits at the end; an error rolls back.
    Raises DatabaseError or SchemaError where the database is out of reach or has no tables.
    """
    from airflow.exceptions import AirflowException
    from airflow.models import Pool
    from airflow.models.connection import Connection
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy.exc import DBAPIError, ProgrammingError

    try:
        with create_session() as session:
            yield session, Connection, Pool, Variable
    except ProgrammingError as error:
        raise SchemaError(f"Airflow's metadata: {_first_line(error)}; run `airflow db migrate`") from None
    except DBAPIError as error:
        raise DatabaseError(
            f"Airflow's metadata: {_first_line(error)}; check AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
        ) from None
    except AirflowException as error:
        raise MLTradingError(f"Airflow: {error}") from None


def _first_line(error: Any) -> str:
    """The driver's own message; SQLAlchemy's would add the statement and its values."""
    return str(error.orig).strip().splitlines()[0]


def apply(settings: AirflowSettings, report: Callable[[str], None] = print) -> int:
    """Brings the metadata database in line with the settings, in one transaction.

    report: takes one line per entry: created, updated (with the names of the changed fields), unchanged
    or left alone. Returns the number of entries created or updated.

    Raises DatabaseError, SchemaError (no tables yet) or MLTradingError (a connection stored under
    another Fernet key).
    """
    outcomes: list[tuple[str, str]] = []
    with _metadata_session() as (session, connection_model, pool_model, variable_model):
        for pool in settings.pools:
            wanted = {"slots": pool.pool_slot, "description": pool.pool_description}
            outcome = _put(
                session, pool_model, {"pool": pool.pool_name}, wanted, at_creation={"include_deferred": False}
            )
            outcomes.append((f"pool {pool.pool_name}", outcome))

        for connection in settings.connections:
            outcome = _provided(f"AIRFLOW_CONN_{connection.conn_id.upper()}") or _put(
                session,
                connection_model,
                {"conn_id": connection.conn_id},
                _connection_fields(connection, connection_model),
            )
            outcomes.append((f"connection {connection.conn_id}", outcome))

        for variable in settings.variables:
            outcome = _provided(f"AIRFLOW_VAR_{variable.variable_name.upper()}") or _put(
                session, variable_model, {"key": variable.variable_name}, {"val": variable.variable_value}
            )
            outcomes.append((f"variable {variable.variable_name}", outcome))

    # Reported only now, because now it is committed.
    for entry, outcome in outcomes:
        report(f"{entry}: {outcome}")
    return sum(outcome.startswith(("created", "updated")) for _, outcome in outcomes)


def _provided(variable: str) -> str | None:
    return f"left alone, {variable} provides it" if variable in os.environ else None


def _connection_fields(setting: ConnectionSetting, model: Any) -> dict[str, Any]:
    """The model's fields as the setting wants them."""
    names = ("conn_type", "host", "schema", "login", "password", "port")
    if setting.conn_uri:
        wanted = model(conn_id=setting.conn_id, uri=setting.conn_uri.get_secret_value())
        return {**{name: getattr(wanted, name) for name in names}, "extra": wanted.extra_dejson}
    return {
        "conn_type": setting.conn_type,
        "host": setting.conn_host,
        "schema": setting.conn_schema,
        "login": setting.conn_login,
        "password": setting.conn_password.get_secret_value() if setting.conn_password else None,
        "port": setting.conn_port,
        "extra": setting.conn_extra,
    }


def _put(
    session: Any,
    model: Any,
    key: Mapping[str, str],
    wanted: Mapping[str, Any],
    at_creation: Mapping[str, Any] | None = None,
) -> str:
    """Creates or updates the row of the key and says which."""
    try:
        # A connection decrypts its password already when it is loaded.
        row = session.query(model).filter_by(**key).one_or_none()
        created = row is None
        if row is None:
            row = model(**key, **(at_creation or {}))
            session.add(row)
        changed = [name for name, value in wanted.items() if _assign(row, name, value)]
    except InvalidToken:
        raise MLTradingError(
            f"{' '.join(key.values())} was stored under another Fernet key: "
            "restore AIRFLOW__CORE__FERNET_KEY or delete the entry"
        ) from None
    if created:
        return "created"
    return f"updated ({', '.join(changed)})" if changed else "unchanged"


def _assign(row: Any, name: str, value: Any) -> bool:
    """Sets a field that differs. An equal one is not set again: encryption would change its bytes."""
    if name == "extra":
        if row.extra_dejson == value:
            return False
        value = json.dumps(value) if value else None
    elif (getattr(row, name) or None) == (value or None):
        return False
    if name == "password" and not value:
        row._password = None  # the property ignores an empty value
    else:
        setattr(row, name, value)
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 = applied, 1 = the database failed, 2 = a wrong file or a missing schema."""
    parser = argparse.ArgumentParser(
        prog="python -m include.mltrading.airflow.apply_settings",
        description="Apply connections, pools and variables to Airflow's metadata database.",
    )
    parser.add_argument("file", nargs="?", type=Path, default=DEFAULT_FILE, metavar="FILE")
    file = parser.parse_args(arguments).file
    try:
        apply(load_settings(file))
    except MLTradingError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
