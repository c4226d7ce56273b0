"""What one statement promises: bars, finality, revisions and stale features stay true together."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import UsageError
from include.mltrading.market.bars import Bar, RefusedBar
from include.mltrading.store import market_data
from include.mltrading.store.connection import Connection, connect
from include.mltrading.store.market_data import Written

pytestmark = pytest.mark.integration

START = datetime(2026, 1, 20, 14, 30, tzinfo=UTC)


def bar(hour: int, close: float = 10.5) -> Bar:
    return Bar(START + timedelta(hours=hour), 10.0, 11.0, 9.0, close, 100)


@pytest.fixture
def connection(settings: Settings) -> Iterator[Connection]:
    with connect(settings) as opened:
        yield opened


def store(connection: Connection, *bars: tuple[Bar, bool]) -> Written:
    return market_data.upsert_bars(connection, "AAPL", bars, source="simulated", correlation_id="run1")


def stored(connection: Connection) -> list[tuple[float, bool]]:
    return connection.execute("SELECT close, is_final FROM market_data ORDER BY timestamp").fetchall()


def stale_from(connection: Connection) -> datetime | None:
    row = connection.execute("SELECT stale_from FROM symbol_state").fetchone()
    return row[0] if row else None


def served(connection: Connection) -> None:
    connection.execute("UPDATE symbol_state SET stale_from = NULL")


def test_new_final_bars_make_features_stale_from_the_first_one(connection: Connection) -> None:
    assert store(connection, (bar(1), True), (bar(0), True)) == (2, 0)
    assert stale_from(connection) == START


def test_an_identical_fetch_writes_nothing(connection: Connection) -> None:
    store(connection, (bar(0), True), (bar(1), False))
    served(connection)
    before = connection.execute("SELECT xmin, updated_at FROM market_data ORDER BY timestamp").fetchall()
    assert store(connection, (bar(0), True), (bar(1), False)) == (0, 0)
    after = connection.execute("SELECT xmin, updated_at FROM market_data ORDER BY timestamp").fetchall()
    assert after == before
    assert stale_from(connection) is None


def test_a_running_bar_is_overwritten_and_then_becomes_final(connection: Connection) -> None:
    store(connection, (bar(0, 10.1), False))
    assert stale_from(connection) is None
    store(connection, (bar(0, 10.2), False))
    assert stored(connection) == [(10.2, False)]
    assert store(connection, (bar(0, 10.2), True)) == (1, 0)
    assert stored(connection) == [(10.2, True)]
    assert stale_from(connection) == START


def test_a_final_bar_never_goes_back_to_provisional(connection: Connection) -> None:
    store(connection, (bar(0), True))
    assert store(connection, (bar(0, 10.9), False)) == (0, 0)
    assert stored(connection) == [(10.5, True)]


def test_a_revision_is_taken_over_and_the_old_bar_kept(connection: Connection) -> None:
    store(connection, (bar(0), True), (bar(1), True), (bar(2), True))
    served(connection)
    assert store(connection, (bar(0), True), (bar(1, 10.7), True), (bar(2), True)) == (1, 1)
    assert [close for close, _ in stored(connection)] == [10.5, 10.7, 10.5]
    assert connection.execute("SELECT timestamp, close, correlation_id FROM bar_revisions").fetchall() == [
        (START + timedelta(hours=1), 10.5, "run1")
    ]
    assert stale_from(connection) == START + timedelta(hours=1)


def test_prices_that_differ_by_single_precision_are_the_same(connection: Connection) -> None:
    store(connection, (bar(0), True))
    assert store(connection, (bar(0, 10.5 * (1 + 5e-7)), True)) == (0, 0)
    assert store(connection, (bar(0, 10.5 * (1 + 5e-6)), True)) == (1, 1)


def test_a_changed_volume_is_a_revision(connection: Connection) -> None:
    store(connection, (bar(0), True))
    assert store(connection, (bar(0)._replace(volume=101), True)) == (1, 1)


def test_a_shorter_reply_deletes_nothing(connection: Connection) -> None:
    store(connection, (bar(0), True), (bar(1), True))
    assert store(connection, (bar(1), True)) == (0, 0)
    assert store(connection) == (0, 0)
    assert len(stored(connection)) == 2


def test_staleness_only_moves_to_earlier_bars(connection: Connection) -> None:
    store(connection, (bar(3), True))
    store(connection, (bar(1), True))
    store(connection, (bar(5), True))
    assert stale_from(connection) == START + timedelta(hours=1)


def test_a_refused_bar_counts_once_however_often_it_comes(connection: Connection) -> None:
    refused = RefusedBar(bar(0, float("nan")), "a price is missing or not finite")
    for run in ("run1", "run2"):
        market_data.quarantine(connection, "AAPL", [refused], correlation_id=run)
    rows = connection.execute(
        "SELECT reason, payload->>'close', last_seen > first_seen FROM quarantined_bars"
    )
    assert rows.fetchall() == [("a price is missing or not finite", "nan", True)]


def test_simulated_and_real_bars_never_share_a_database(connection: Connection) -> None:
    market_data.claim_source(connection, "simulated")
    market_data.claim_source(connection, "simulated")
    with pytest.raises(UsageError, match=r"holds simulated data.*serves yahoo data.*MLTRADING_DATABASE_URL"):
        market_data.claim_source(connection, "yahoo")


def test_the_newest_final_bar_is_found(connection: Connection) -> None:
    assert market_data.last_final_bar(connection, "AAPL") is None
    store(connection, (bar(0), True), (bar(1), True), (bar(2), False))
    assert market_data.last_final_bar(connection, "AAPL") == START + timedelta(hours=1)


def test_a_known_volume_does_not_become_nothing_at_equal_prices(connection: Connection) -> None:
    lost = bar(0)._replace(volume=0)
    store(connection, (bar(0), False))
    assert store(connection, (lost, True)) == (1, 0)  # final now, with the volume that was known
    assert store(connection, (lost, True)) == (0, 0)
    assert store(connection, (bar(1)._replace(volume=0), True)) == (1, 0)
    assert store(connection, (bar(1), True)) == (1, 1)  # it had none at first
    assert connection.execute("SELECT volume FROM market_data ORDER BY timestamp").fetchall() == [(100,)] * 2
