"""The databases that tests share: none tells the next test what the one before it did."""

from __future__ import annotations

import psycopg
import pytest
from market_databases import MarketDatabases

from include.standalone.postgres import EmbeddedPostgres

pytestmark = pytest.mark.integration

ALERT = (
    "INSERT INTO alerts (key, condition, kind, severity, subject, details)"
    " VALUES ('x', 'x', 'k', 'info', 's', '{}') RETURNING id"
)


@pytest.mark.parametrize(
    ("change", "used_again"),
    [
        (ALERT, True),
        ("ALTER TABLE market_data ADD COLUMN mine text", False),
        ("CREATE TABLE mine (x int)", False),
        ("UPDATE schema_migrations SET checksum = 'x' WHERE version = 1", False),
        ("DROP TABLE schema_migrations", False),
        ("CREATE SCHEMA mine", False),
    ],
)
def test_a_database_is_as_the_migrations_make_it_whatever_was_done_before(
    postgres: EmbeddedPostgres, market_databases: MarketDatabases, change: str, used_again: bool
) -> None:
    server = postgres.url("postgres").rpartition("/")[0]
    first = market_databases.take()
    # Left open, as a test that failed may do.
    held = psycopg.connect(f"{server}/{first}", autocommit=True)
    held.execute(change)  # type: ignore[call-overload]
    market_databases.give_back(first)
    second = market_databases.take()
    assert (second == first) is used_again
    with psycopg.connect(f"{server}/{second}") as connection:
        assert connection.execute("SELECT count(*) FROM alerts").fetchone() == (0,)
        assert connection.execute(ALERT).fetchone() == (1,)
        assert connection.execute(
            "SELECT count(*) FROM schema_migrations WHERE checksum = 'x'"
        ).fetchone() == (0,)
    market_databases.give_back(second)
    held.close()
