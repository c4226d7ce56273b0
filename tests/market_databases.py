"""Market databases for tests: a test gets one as the migrations make it, and the next one gets it emptied.

Making and dropping a database costs several times what emptying one does.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import LiteralString

import psycopg
from psycopg.conninfo import make_conninfo

from include.standalone.postgres import SUPERUSER, EmbeddedPostgres

# Whatever a test may have changed but rows: columns, constraints, triggers, views, rights, settings.
_SCHEMA = """
SELECT md5(string_agg(line, chr(10) ORDER BY line)) FROM (
    SELECT concat_ws(' ', relname, relkind, relowner, relacl, reloptions) AS line FROM pg_class
        WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT concat_ws(' ', attrelid::regclass, attname, atttypid, attnotnull, attisdropped, attacl)
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = 'public'::regnamespace AND attnum > 0
    UNION ALL SELECT concat_ws(' ', conrelid::regclass, pg_get_constraintdef(oid)) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT concat_ws(' ', tgrelid::regclass, tgname, tgenabled) FROM pg_trigger
    UNION ALL SELECT concat_ws(' ', viewname, definition) FROM pg_views WHERE schemaname = 'public'
    UNION ALL SELECT concat_ws(' ', proname, prosrc) FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT concat_ws(' ', nspname, nspowner, nspacl) FROM pg_namespace WHERE nspname !~ '^pg_t'
    UNION ALL SELECT concat_ws(' ', datacl, datconnlimit, setrole, setconfig)
        FROM pg_database LEFT JOIN pg_db_role_setting ON setdatabase = pg_database.oid
        WHERE datname = current_database()
    UNION ALL SELECT concat_ws(' ', version, name, checksum) FROM schema_migrations
) AS lines
"""

_ALONE = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""

_EMPTY = """
DO $$
DECLARE
    place text;
    filled boolean;
    places text[] := '{}';
BEGIN
    FOR place IN SELECT oid::regclass FROM pg_class
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'schema_migrations'
    LOOP
        EXECUTE 'SELECT EXISTS (SELECT FROM ' || place || ')' INTO filled;
        IF filled THEN places := places || place; END IF;
    END LOOP;
    IF places <> '{}' THEN EXECUTE 'TRUNCATE ' || array_to_string(places, ', '); END IF;
    FOR place IN SELECT format('%I.%I', schemaname, sequencename) FROM pg_sequences
        WHERE last_value IS NOT NULL
    LOOP
        EXECUTE 'ALTER SEQUENCE ' || place || ' RESTART';
    END LOOP;
END $$
"""


class MarketDatabases:
    """Copies of the database `template`, owned by the role of its name, that several tests use in turn."""

    def __init__(self, postgres: EmbeddedPostgres, template: str) -> None:
        self._template = template
        self._url = postgres.url(SUPERUSER)
        with self._connect(template) as connection:
            self._schema = connection.execute(_SCHEMA).fetchone()
        self._free: list[str] = []

    def take(self) -> str:
        """Name of a database without rows."""
        if self._free:
            return self._free.pop()
        name = f"market_{uuid.uuid4().hex[:8]}"
        self._run(f"CREATE DATABASE {name} TEMPLATE {self._template} OWNER {self._template}")
        return name

    def give_back(self, name: str) -> None:
        """Empty it for the next test; drop it where more than its rows was changed."""
        with suppress(psycopg.Error), self._connect(name) as connection:  # it or a table of its may be gone
            connection.execute(_ALONE)
            if connection.execute(_SCHEMA).fetchone() == self._schema:
                connection.execute(_EMPTY)
                self._free.append(name)
                return
        self._run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _run(self, statement: LiteralString) -> None:
        with self._connect(SUPERUSER) as connection:
            connection.execute(statement)

    def _connect(self, database: str) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(make_conninfo(self._url, dbname=database), autocommit=True)
