"""The Airflow connection to the market database, in libpq's terms."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

from airflow.providers.common.compat.sdk import BaseHook

from include.mltrading.errors import DatabaseRefusedError

CONNECTION_ID = "mltrading_db"

# libpq's keywords and their environment variables (https://www.postgresql.org/docs/current/libpq-envars.html).
_VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "passfile": "PGPASSFILE",
    "dbname": "PGDATABASE",
    "service": "PGSERVICE",
    "options": "PGOPTIONS",
    "application_name": "PGAPPNAME",
    "client_encoding": "PGCLIENTENCODING",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "channel_binding": "PGCHANNELBINDING",
    "require_auth": "PGREQUIREAUTH",
    "requirepeer": "PGREQUIREPEER",
    "sslmode": "PGSSLMODE",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "sslcompression": "PGSSLCOMPRESSION",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcertmode": "PGSSLCERTMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcrl": "PGSSLCRL",
    "sslcrldir": "PGSSLCRLDIR",
    "sslsni": "PGSSLSNI",
    "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
    "ssl_max_protocol_version": "PGSSLMAXPROTOCOLVERSION",
    "min_protocol_version": "PGMINPROTOCOLVERSION",
    "max_protocol_version": "PGMAXPROTOCOLVERSION",
    "gssencmode": "PGGSSENCMODE",
    "krbsrvname": "PGKRBSRVNAME",
    "gsslib": "PGGSSLIB",
    "gssdelegation": "PGGSSDELEGATION",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "load_balance_hosts": "PGLOADBALANCEHOSTS",
}
# Those without a variable.
_WITHOUT = {
    "fallback_application_name",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "sslpassword",
}


def libpq_keywords() -> dict[str, str]:
    """The connection as libpq's keywords; what it leaves empty is absent.

    A field goes before an extra. Raises DatabaseRefusedError for an extra that libpq does not know.
    """
    # Not through PostgresHook, which would look it up the same way: its import loads two database drivers,
    # 0.17 s of processor time in every task and every parse.
    connection = BaseHook.get_connection(CONNECTION_ID)
    values = _extras(connection.extra)
    for name, value in values.items():
        if name not in _VARIABLES and name not in _WITHOUT:
            raise _refused(name, "is no option of libpq that is passed on: take it out")
        if not isinstance(value, str | int | float | None) or "\0" in str(value):
            raise _refused(name, "is neither a text nor a number: correct it")
    fields = {
        "host": connection.host,
        "port": connection.port,
        "user": connection.login,
        "password": connection.password,
        "dbname": connection.schema,
    }
    values |= {name: value for name, value in fields.items() if value}
    return {name: _text(value) for name, value in values.items() if value is not None and value != ""}


def _extras(text: str | None) -> dict[str, Any]:
    """The connection's extras; Airflow takes what is no JSON for none, and would connect without sslmode."""
    try:
        values = json.loads(text or "{}")
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise DatabaseRefusedError(
            f"the connection {CONNECTION_ID}: its extra is not a JSON object: correct it, as in "
            '{"sslmode": "require"}'
        )
    return values


def libpq_variables() -> dict[str, str]:
    """The connection as environment variables, which no process list shows: libpq's, and the program's URL
    for what libpq has no variable for.
    """
    keywords = libpq_keywords()
    variables = {_VARIABLES[name]: value for name, value in keywords.items() if name in _VARIABLES}
    rest = {name: value for name, value in keywords.items() if name in _WITHOUT}
    # The URL goes before libpq's variables, and names nothing that they do.
    url = {"MLTRADING_DATABASE_URL": f"postgresql://?{urlencode(rest, quote_via=quote)}"} if rest else {}
    return variables | url


def _refused(name: str, why: str) -> DatabaseRefusedError:
    return DatabaseRefusedError(f"the connection {CONNECTION_ID}: its extra {name!r} {why}")


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
