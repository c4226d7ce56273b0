"""The roles of the market database: the pipeline has its own schema and 25 connections, analysts read."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

from include.mltrading.configuration.settings import Settings
from include.mltrading.store.connection import connect
from include.mltrading.store.migrations import migrate
from include.standalone.postgres import READONLY, SUPERUSER, EmbeddedPostgres


@dataclass(frozen=True)
class Market:
    name: str
    pipeline: str
    analyst: str
    admin: str


@pytest.fixture(scope="module")
def market(postgres: EmbeddedPostgres) -> Iterator[Market]:
    """A database made as the bare machine makes it, migrated by the pipeline's role."""
    name = f"roles_{uuid.uuid4().hex[:8]}"
    pipeline = postgres.ensure_database(name, connection_limit=25)
    postgres.apply_roles(name)
    with connect(Settings(database_url=pipeline)) as connection:
        migrate(connection)
    analyst = make_conninfo(pipeline, user=READONLY, password=postgres._password(READONLY))
    admin = make_conninfo(postgres.url(SUPERUSER), dbname=name)
    yield Market(name, pipeline, analyst, admin)
    with psycopg.connect(postgres.url(SUPERUSER), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        connection.execute(f"DROP DATABASE {name}_verify WITH (FORCE)")


def test_the_pipelines_tables_stand_in_its_own_schema(market: Market) -> None:
    with psycopg.connect(market.admin) as connection:
        rows = connection.execute(
            "SELECT DISTINCT schemaname FROM pg_tables"
            " WHERE tablename IN ('market_data', 'schema_migrations')"
        ).fetchall()
        limit = connection.execute(
            "SELECT rolconnlimit, rolsuper, rolcreaterole FROM pg_roles WHERE rolname = %s", [market.name]
        ).fetchone()
    assert rows == [(market.name,)]
    assert limit == (25, False, False)


@pytest.mark.parametrize("table", ["market_data", "feature_engineered_data", "latest_bars_with_features"])
def test_analysts_read_tables_and_views_without_naming_the_schema(market: Market, table: str) -> None:
    select = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
    with psycopg.connect(market.analyst) as connection:
        assert connection.execute(select).fetchone() == (0,)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM market_data",
        "INSERT INTO symbol_state (symbol) VALUES ('AAPL')",
        "TRUNCATE feature_engineered_data",
        "DROP TABLE market_data",
        "CREATE TABLE mine (a integer)",
        "CREATE SCHEMA mine",
    ],
)
def test_analysts_change_nothing_also_when_they_ask_for_write_transactions(
    market: Market, statement: str
) -> None:
    with psycopg.connect(market.analyst, autocommit=True) as connection:
        with pytest.raises(errors.ReadOnlySqlTransaction):
            connection.execute(statement)
        connection.execute("SET default_transaction_read_only = off")
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute(statement)


def test_roles_may_be_applied_again_and_a_strangers_role_stays_outside(
    postgres: EmbeddedPostgres, market: Market
) -> None:
    postgres.apply_roles(market.name)
    stranger = postgres.ensure_database(f"other_{uuid.uuid4().hex[:8]}")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(make_conninfo(stranger, dbname=market.name))


def test_the_database_to_verify_backups_in_is_the_pipelines_and_nobody_elses(
    postgres: EmbeddedPostgres, market: Market
) -> None:
    verify = f"{market.name}_verify"
    with psycopg.connect(make_conninfo(market.pipeline, dbname=verify)) as connection:
        connection.execute("CREATE TABLE anything ()")
        connection.rollback()
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(make_conninfo(market.analyst, dbname=verify))


def test_tables_that_stand_in_public_are_not_hidden(
    postgres: EmbeddedPostgres, cli: Callable[..., Any]
) -> None:
    """An installation made before there were roles goes on with its data."""
    name = f"old_{uuid.uuid4().hex[:8]}"
    url = postgres.ensure_database(name, connection_limit=25)
    assert cli("migrate", MLTRADING_DATABASE_URL=url).code == 0
    postgres.apply_roles(name)
    again = cli("migrate", "--json", MLTRADING_DATABASE_URL=url)
    assert again.document == {"applied": []}
    analyst = make_conninfo(url, user=READONLY, password=postgres._password(READONLY))
    with psycopg.connect(analyst) as connection:
        assert connection.execute("SELECT count(*) FROM market_data").fetchone() == (0,)
