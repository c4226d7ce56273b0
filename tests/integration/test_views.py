"""Getting the data out: the views, and the two ways that the README shows."""

from __future__ import annotations

import csv
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from include.market_simulator import bars as simulated_bars
from include.mltrading.configuration.settings import PROJECT_ROOT, Settings
from include.mltrading.features.definitions import COLUMNS
from include.mltrading.market.bars import Bar
from include.mltrading.pipeline.features import FeatureComputation
from include.mltrading.pipeline.run import Run
from include.mltrading.pipeline.steps import FEATURES
from include.mltrading.store import feature_table, ledger, market_data
from include.mltrading.store.connection import Connection, connect
from include.standalone.postgres import EmbeddedPostgres

pytestmark = pytest.mark.integration

END = datetime(2026, 1, 21, 16, tzinfo=UTC)
SYMBOLS = ["AAPL", "MSFT", "NVDA"]


@pytest.fixture
def stored(settings: Settings) -> Iterator[Connection]:
    """Three symbols of 120 final bars with features, and a provisional bar; AAPL has a final one without."""
    run = Run("dag", "run", 1, END)
    with connect(settings) as connection, closing(FeatureComputation(settings, run)) as compute:
        ledger.claim(connection, run.attempt(FEATURES), SYMBOLS)
        for symbol in SYMBOLS:
            bars = [Bar(*bar) for bar in simulated_bars(7, symbol, END - timedelta(days=60), END)]
            final = [(bar, True) for bar in bars[:120]]
            market_data.upsert_bars(connection, symbol, final, source="simulated", correlation_id="x")
            compute(symbol, lambda: None)
            newer = [(bars[120], symbol == "AAPL"), (bars[121], False)]
            market_data.upsert_bars(connection, symbol, newer, source="simulated", correlation_id="x")
        yield connection


def test_bars_with_features_are_the_final_bars_with_all_features(stored: Connection) -> None:
    cursor = stored.execute("SELECT * FROM bars_with_features ORDER BY symbol, timestamp")
    names = [column.name for column in cursor.description or ()]
    rows = cursor.fetchall()
    prices = ["open", "high", "low", "close", "volume"]
    assert names == ["symbol", "timestamp", *prices, *COLUMNS, "feature_version"]
    assert len(rows) == 3 * 120
    for symbol in SYMBOLS:
        starts, bars = feature_table.select_bars(stored, symbol, full=True)
        features = feature_table.select_features(stored, symbol)
        mine = [row for row in rows if row[0] == symbol]
        np.testing.assert_array_equal(np.array([row[2:7] for row in mine], dtype=float), bars[:, :120].T)
        values = np.array([row[7:-1] for row in mine], dtype=float)
        np.testing.assert_array_equal(values, features.values)
        assert [row[1].replace(tzinfo=None) for row in mine] == starts[:120].tolist()


def test_the_latest_row_of_each_symbol_is_its_newest_with_features(stored: Connection) -> None:
    latest = stored.execute("SELECT * FROM latest_bars_with_features ORDER BY symbol").fetchall()
    newest = stored.execute(
        "SELECT DISTINCT ON (symbol) * FROM bars_with_features ORDER BY symbol, timestamp DESC"
    ).fetchall()
    assert [row[0] for row in latest] == SYMBOLS
    assert latest == newest


def example(language: str, marker: str) -> str:
    """The README's example in that language which holds the marker."""
    readme = (PROJECT_ROOT / "README.md").read_text()
    [found] = [text for text in re.findall(rf"```{language}\n(.*?)```", readme, re.DOTALL) if marker in text]
    return str(found)


def test_the_copy_of_the_readme_writes_a_csv_file(
    stored: Connection, database: str, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    subprocess.run(
        ["bash", "-euc", example("sh", r"\copy")],
        cwd=tmp_path,
        env={"PATH": f"{postgres.bin}:/usr/bin:/bin", "MLTRADING_DATABASE_URL": database},
        check=True,
    )
    [path] = tmp_path.glob("*.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 120
    assert set(COLUMNS) < set(rows[0])
    assert rows[0]["rsi"] == ""  # not defined yet, and not 0
    [(last,)] = stored.execute("SELECT rsi FROM latest_bars_with_features WHERE symbol = 'AAPL'").fetchall()
    assert float(rows[-1]["rsi"]) == last


@pytest.mark.filterwarnings("ignore:pandas only supports SQLAlchemy:UserWarning")
def test_the_pandas_example_of_the_readme_gives_a_frame(
    stored: Connection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLTRADING_DATABASE_URL", database)
    names: dict[str, object] = {}
    exec(example("python", "read_sql"), names)  # noqa: S102 - the README's own code
    frame = names["frame"]
    assert frame.shape == (120, 5 + len(COLUMNS))  # type: ignore[attr-defined]
    assert str(frame.index.tz) == "America/New_York"  # type: ignore[attr-defined]
    assert frame["rsi"].isna().sum() == 14  # type: ignore[attr-defined]
    assert (frame.dtypes == "float64").all()  # type: ignore[attr-defined]
