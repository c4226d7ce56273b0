"""A market database with a year of six symbols, bars and features, made once for each file of tests.

Three price walks are loaded and computed by the product's own code; the other symbols repeat them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from include.market_simulator import bars as simulated_bars
from include.mltrading.cli.task import feature_limits
from include.mltrading.configuration.settings import Settings
from include.mltrading.features.definitions import COLUMNS
from include.mltrading.market.bars import Bar
from include.mltrading.pipeline.batch import run_batch
from include.mltrading.pipeline.features import FeatureComputation
from include.mltrading.pipeline.run import Run
from include.mltrading.pipeline.steps import FEATURES
from include.mltrading.store import market_data
from include.mltrading.store.connection import connect
from include.standalone.postgres import EmbeddedPostgres

SEED = 7
NAMES = [f"Y{number:03d}" for number in range(6)]
WALKS = 3
# The same walk as Y000.
TWIN = "Y003"
NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


@pytest.fixture(scope="module")
def year_template(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """Name of the database from which each test's own is copied."""
    name = f"year_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {migrated_template} OWNER {migrated_template}")
        url = f"{postgres.url(migrated_template).rpartition('/')[0]}/{name}"
        settings = Settings(database_url=url)
        with connect(settings) as connection:
            for symbol in NAMES[:WALKS]:
                year = [(Bar(*bar), True) for bar in simulated_bars(SEED, symbol, NOW - timedelta(366), NOW)]
                # Without the row that the vendor stamps with the close of a half day.
                ended = [
                    (bar, True)
                    for bar, _ in year
                    if bar.timestamp.minute == 30 and bar.timestamp + timedelta(hours=1) <= NOW
                ]
                market_data.claim_source(connection, "simulated")
                market_data.upsert_bars(connection, symbol, ended, source="simulated", correlation_id="year")
        run = Run.from_command_line(None)
        work = FeatureComputation(settings, run)
        limits = feature_limits(settings)
        outcomes = run_batch(settings, run, FEATURES, NAMES[:WALKS], work, limits=limits, concurrency=2)
        assert [outcome.status for outcome in outcomes] == ["ok"] * WALKS
        with psycopg.connect(url) as connection:
            for table, columns in {
                "market_data": "timestamp, open, high, low, close, volume, is_final, source",
                "feature_engineered_data": f"timestamp, {', '.join(COLUMNS)}, feature_version",
                "symbol_state": "stale_from, feature_version, last_fetch_at",
            }.items():
                connection.execute(
                    f"INSERT INTO {table} (symbol, {columns}) SELECT name, {columns}"  # noqa: S608
                    " FROM unnest(%s::text[]) WITH ORDINALITY AS copy (name, number)"
                    f" JOIN {table} ON symbol = 'Y' || lpad(((number - 1) %% %s)::text, 3, '0')",
                    (NAMES[WALKS:], WALKS),
                )
        with connect(settings) as connection:
            connection.execute("VACUUM ANALYZE")
        yield name
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def year(postgres: EmbeddedPostgres, migrated_template: str, year_template: str) -> Iterator[str]:
    """URL of a database of the test's own with a year of NAMES."""
    name = f"market_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {year_template} OWNER {migrated_template}")
        yield f"{postgres.url(migrated_template).rpartition('/')[0]}/{name}"
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
