"""The Airflow connection to the market database, in libpq's terms."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import BaseHook

CONNECTION_ID = "mltrading_db"

# libpq's keywords and their environment variables (https://www.postgresql.org/docs/current/libpq-envars.html).
_VARIABLES = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "sslmode": "PGSSLMODE",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcrl": "PGSSLCRL",
    "options": "PGOPTIONS",
    "service": "PGSERVICE",
    "passfile": "PGPASSFILE",
    "channel_binding": "PGCHANNELBINDING",
    "gssencmode": "PGGSSENCMODE",
    "krbsrvname": "PGKRBSRVNAME",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}


def libpq_keywords() -> dict[str, str]:
    """The connection as libpq's keywords; what it leaves empty is absent."""
    # Not through PostgresHook, which would look it up the same way: its import loads two database drivers,
    # 0.17 s of processor time in every task and every parse.
    connection = BaseHook.get_connection(CONNECTION_ID)
    values = {
        **connection.extra_dejson,
        "host": connection.host,
        "port": connection.port,
        "user": connection.login,
        "password": connection.password,
        "dbname": connection.schema,
    }
    return {name: str(values[name]) for name in _VARIABLES if values.get(name)}


def libpq_variables() -> dict[str, str]:
    """The connection as libpq's environment variables, which no process list shows."""
    return {_VARIABLES[name]: value for name, value in libpq_keywords().items()}
