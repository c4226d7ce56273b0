"""Features in the table: one row for each final bar, incremental equal to full, no revision ever lost."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from bokeh_sampledata import stocks
from numpy.typing import NDArray

from include.market_simulator import bars as simulated_bars
from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import MLTradingError
from include.mltrading.features.compute import compute
from include.mltrading.features.definitions import COLUMNS, FEATURES
from include.mltrading.market.bars import Bar
from include.mltrading.operations import check
from include.mltrading.pipeline.batch import run_batch
from include.mltrading.pipeline.child import Limits
from include.mltrading.pipeline.features import FeatureComputation
from include.mltrading.pipeline.publish import verify
from include.mltrading.pipeline.run import Run
from include.mltrading.pipeline.steps import FEATURES as STEP
from include.mltrading.store import feature_table, ledger, market_data
from include.mltrading.store.arrays import as_instants
from include.mltrading.store.connection import Connection, connect

pytestmark = pytest.mark.integration

END = datetime(2026, 1, 21, 16, tzinfo=UTC)
YEAR = [
    Bar(*bar) for bar in simulated_bars(7, "AAPL", END - timedelta(days=365), END)
]  # the simulator's Bar has the same fields
LIMITS = Limits(30, 30, 30, 256)


@pytest.fixture
def connection(settings: Settings) -> Iterator[Connection]:
    with connect(settings) as opened:
        yield opened


def store(connection: Connection, bars: Sequence[Bar], symbol: str = "AAPL", final: bool = True) -> None:
    market_data.upsert_bars(
        connection, symbol, [(bar, final) for bar in bars], source="simulated", correlation_id="test"
    )


Compute = Callable[..., int]


@pytest.fixture
def features(settings: Settings) -> Compute:
    """features() does what the task does for one symbol, in this process; returns the rows written."""
    runs = iter(range(1000))

    def call(symbol: str = "AAPL", *, full: bool = False, dry_run: bool = False) -> int:
        run = Run("dag", f"run{next(runs)}", 1, END)
        with connect(settings) as connection:
            ledger.claim(connection, run.attempt(STEP), [symbol])
        with closing(FeatureComputation(settings, run, full=full, dry_run=dry_run)) as computation:
            return computation(symbol, lambda: None)

    return call


def table(connection: Connection, symbol: str = "AAPL") -> tuple[list[datetime], NDArray[np.float64]]:
    stored = feature_table.select_features(connection, symbol)
    return as_instants(stored.starts[stored.current]), stored.values[stored.current]


def of(bars: Sequence[Bar]) -> NDArray[np.float64]:
    columns = np.array([bar[1:] for bar in bars], dtype=np.float64).T
    return compute(*np.ascontiguousarray(columns))


def test_a_full_run_stores_exactly_what_compute_gives(connection: Connection, features: Compute) -> None:
    store(connection, YEAR)
    assert features() == len(YEAR)
    timestamps, values = table(connection)
    assert timestamps == [bar.timestamp for bar in YEAR]
    np.testing.assert_array_equal(values, of(YEAR))


def test_undefined_values_are_null_and_never_nan(connection: Connection, features: Compute) -> None:
    store(connection, YEAR)
    features()
    for feature in FEATURES:
        row = connection.execute(
            f"SELECT count(*) FILTER (WHERE {feature.column} IS NULL), "  # noqa: S608 - our own column names
            f"count(*) FILTER (WHERE {feature.column} IN ('NaN', 'Infinity', '-Infinity')) "
            "FROM feature_engineered_data"
        ).fetchone()
        assert row == (feature.first_bar, 0), feature.column


def test_provisional_bars_have_no_features(connection: Connection, features: Compute) -> None:
    store(connection, YEAR[:100])
    store(connection, YEAR[100:101], final=False)
    assert features() == 100
    assert len(table(connection)[0]) == 100


def test_a_second_run_has_nothing_to_do(connection: Connection, features: Compute) -> None:
    store(connection, YEAR)
    features()
    before = connection.execute("SELECT xmin FROM feature_engineered_data ORDER BY timestamp").fetchall()
    assert features() == 0
    assert features(full=True) == 0
    after = connection.execute("SELECT xmin FROM feature_engineered_data ORDER BY timestamp").fetchall()
    assert after == before


def test_a_full_run_mends_what_is_missing_or_wrong_and_touches_nothing_else(
    connection: Connection, features: Compute
) -> None:
    store(connection, YEAR)
    features()
    rows = "SELECT timestamp, xmin FROM feature_engineered_data ORDER BY timestamp"
    before = dict(connection.execute(rows).fetchall())
    missing, wrong, undefined = (YEAR[i].timestamp for i in (700, 900, 1100))
    connection.execute("DELETE FROM feature_engineered_data WHERE timestamp = %s", (missing,))
    connection.execute("UPDATE feature_engineered_data SET rsi = 1 WHERE timestamp = %s", (wrong,))
    connection.execute("UPDATE feature_engineered_data SET adx = NULL WHERE timestamp = %s", (undefined,))
    assert features(full=True) == 3
    after = dict(connection.execute(rows).fetchall())
    assert {start for start in before if before[start] != after[start]} == {missing, wrong, undefined}
    np.testing.assert_array_equal(table(connection)[1], of(YEAR))


def test_a_dry_run_counts_and_writes_nothing(connection: Connection, features: Compute) -> None:
    store(connection, YEAR[:50])
    assert features(dry_run=True) == 50
    assert table(connection)[0] == []
    assert features() == 50


@pytest.mark.parametrize("seed", range(3))
def test_any_cut_into_incremental_runs_equals_one_full_run(
    connection: Connection, features: Compute, seed: int
) -> None:
    rng = random.Random(seed)  # noqa: S311 - a reproducible cut
    cuts = sorted(rng.sample(range(1, len(YEAR)), 12))
    for start, stop in zip([0, *cuts], [*cuts, len(YEAR)], strict=True):
        store(connection, YEAR[start:stop])
        assert features() == stop - start
    _, values = table(connection)
    expected = of(YEAR)
    finite = [not feature.recursive for feature in FEATURES]
    np.testing.assert_array_equal(values[:, finite], expected[:, finite])
    np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-12)


def test_a_revision_recomputes_from_its_bar_on_and_nothing_before(
    connection: Connection, features: Compute
) -> None:
    store(connection, YEAR)
    features()
    revised = [*YEAR]
    revised[1000] = YEAR[1000]._replace(
        close=YEAR[1000].close * 1.01, high=max(YEAR[1000].high, YEAR[1000].close * 1.01)
    )
    before = connection.execute(
        "SELECT xmin FROM feature_engineered_data ORDER BY timestamp LIMIT 1000"
    ).fetchall()
    store(connection, [revised[1000]])
    # Far behind the revision its last digit fades away: rows that come out the same are not rewritten.
    assert 480 < features() <= len(YEAR) - 1000
    after = connection.execute(
        "SELECT xmin FROM feature_engineered_data ORDER BY timestamp LIMIT 1000"
    ).fetchall()
    assert after == before
    np.testing.assert_allclose(table(connection)[1], of(revised), rtol=1e-9, atol=1e-12)


def test_a_raised_feature_version_recomputes_everything(
    connection: Connection, features: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(connection, YEAR[:60])
    features()
    monkeypatch.setattr("include.mltrading.pipeline.features.FEATURE_VERSION", "next")
    monkeypatch.setattr("include.mltrading.store.feature_table.FEATURE_VERSION", "next")
    assert features() == 60
    versions = connection.execute("SELECT DISTINCT feature_version FROM feature_engineered_data").fetchall()
    assert versions == [("next",)]


def test_a_revision_that_races_a_features_run_is_never_lost(
    settings: Settings, connection: Connection, features: Compute
) -> None:
    store(connection, YEAR)
    revised = YEAR[-2]._replace(close=YEAR[-2].close * 1.001, high=YEAR[-2].high * 1.01)
    blocked = threading.Event()

    def revise() -> None:
        with connect(settings) as other, other.transaction():
            blocked.set()
            market_data.lock_symbol(other, "AAPL")  # waits for the features run, which holds the lock
            store(other, [revised])

    with connection.transaction():
        market_data.lock_symbol(connection, "AAPL")
        collector = threading.Thread(target=revise)
        collector.start()
        blocked.wait()
        time.sleep(0.2)
        # The features run of this transaction: reads and writes while the revision waits.
        state, starts, columns = feature_table.lock_stale(connection, "AAPL", full=False)()
        assert state.stale_from is not None
        feature_table.upsert_features(
            connection, "AAPL", starts, compute(*columns), features_until=state.features_until
        )
        feature_table.mark_current(connection, "AAPL")
    collector.join()
    assert feature_table.lock_state(connection, "AAPL").stale_from == YEAR[-2].timestamp
    assert features() == 2
    expected = of([*YEAR[:-2], revised, YEAR[-1]])
    np.testing.assert_allclose(table(connection)[1], expected, rtol=1e-9, atol=1e-12)


def test_every_symbol_has_a_process_of_its_own_and_a_broken_one_hurts_nobody(
    settings: Settings, connection: Connection
) -> None:
    for symbol in ("AAPL", "MSFT", "NVDA"):
        store(connection, YEAR[:200], symbol)
    # A lock that nobody releases: the symbol's process can only be ended by its limit.
    with connect(settings) as other, other.transaction():
        market_data.lock_symbol(other, "MSFT")
        run = Run("dag", "run", 1, END)
        outcomes = run_batch(
            settings, run, STEP, ["AAPL", "MSFT", "NVDA"], FeatureComputation(settings, run),
            limits=Limits(2, 30, 30, 256), concurrency=2,
        )  # fmt: skip
    assert {o.symbol: o.status for o in outcomes} == {"AAPL": "ok", "MSFT": "timeout", "NVDA": "ok"}
    told = connection.execute(
        "SELECT symbol, status, rows_written, peak_memory_bytes > 1000000 FROM processing_history "
        "ORDER BY symbol"
    ).fetchall()
    assert told == [("AAPL", "ok", 200, True), ("MSFT", "timeout", None, True), ("NVDA", "ok", 200, True)]
    with pytest.raises(MLTradingError, match=r"MSFT \(timeout"):
        verify(settings, run, [STEP], ["AAPL", "MSFT", "NVDA"])


def test_verification_finds_final_bars_without_features(
    settings: Settings, connection: Connection, features: Compute
) -> None:
    store(connection, YEAR[:50])
    features()
    run = Run("dag", "run0", 1, END)
    assert verify(settings, run, [STEP], ["AAPL"])[0].good == ["AAPL"]
    connection.execute("DELETE FROM feature_engineered_data WHERE timestamp = %s", (YEAR[7].timestamp,))
    with pytest.raises(MLTradingError, match=r"do not match: AAPL \(1 bars\)"):
        verify(settings, run, [STEP], ["AAPL"])
    # A bar that changed after the features run waits for the next one: nothing is wrong.
    connection.execute("UPDATE symbol_state SET stale_from = %s", (YEAR[7].timestamp,))
    assert verify(settings, run, [STEP], ["AAPL"])[0].good == ["AAPL"]


def test_a_recomputation_agrees_and_finds_what_was_tampered_with(
    settings: Settings, connection: Connection, features: Compute
) -> None:
    store(connection, YEAR[:600])
    features()
    store(connection, YEAR[600:])
    features()
    assert max(check.recompute(settings, 10).values()) < 1e-9
    connection.execute(
        "UPDATE feature_engineered_data SET rsi = rsi * 1.01 WHERE timestamp = %s", (YEAR[-1][0],)
    )
    worst = check.recompute(settings, 10)
    assert {column for column, value in worst.items() if value > 1e-9} == {"rsi"}
    connection.execute("UPDATE feature_engineered_data SET rsi = NULL WHERE timestamp = %s", (YEAR[-1][0],))
    with pytest.raises(MLTradingError, match=r"AAPL.*features --full"):
        check.recompute(settings, 10)


@pytest.mark.parametrize("name", ["AAPL", "IBM", "MSFT"])
def test_thirteen_years_of_real_prices_go_through_without_an_invented_value(
    connection: Connection, features: Compute, name: str
) -> None:
    days = getattr(stocks, name)
    columns = (days[field] for field in ("date", "open", "high", "low", "close", "volume"))
    real = [
        Bar(datetime.fromisoformat(day).replace(tzinfo=UTC), *map(float, values))
        for day, *values in zip(*columns, strict=True)
    ]
    assert len(real) > 3000
    store(connection, real, name)
    stored = connection.execute("SELECT count(*) FROM market_data").fetchone()
    assert stored == (len(real),)
    assert features(name) == len(real)
    _, values = table(connection, name)
    np.testing.assert_array_equal(values, of(real))
    for feature, column in zip(FEATURES, values.T, strict=True):
        assert int(np.isnan(column).sum()) == feature.first_bar, feature.column
    assert len(COLUMNS) == values.shape[1]
