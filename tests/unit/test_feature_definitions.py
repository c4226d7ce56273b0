"""The definitions, the page generated from them, and how TA-Lib is loaded."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from include.mltrading.features import definitions as d
from include.mltrading.features.compute import compute

ROOT = Path(__file__).resolve().parents[2]

# The table's columns are a contract with whoever reads it, so they are written out once more.
CONTRACT = [
    "returns",
    "log_returns",
    "high_low_pct",
    "open_close_pct",
    "price_acceleration",
    "returns_sign",
    "sma_short",
    "sma_med",
    "sma_long",
    "price_to_sma_short",
    "price_to_sma_med",
    "price_to_sma_long",
    "sma_short_to_med",
    "sma_med_to_long",
    "realized_vol_short",
    "realized_vol_med",
    "realized_vol_long",
    "gk_volatility",
    "vol_of_vol",
    "bb_upper",
    "bb_lower",
    "bb_position",
    "bb_squeeze",
    "macd",
    "macd_signal",
    "macd_histogram",
    "macd_normalized",
    "atr",
    "atr_normalized",
    "williams_r",
    "rsi",
    "stoch_k",
    "stoch_d",
    "adx",
    "cci",
    "mfi",
]


def _run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_columns_stand_in_the_order_of_the_contract():
    assert list(d.COLUMNS) == CONTRACT
    assert len(set(d.COLUMNS)) == len(d.COLUMNS)


def test_every_definition_says_what_it_means():
    for feature in d.FEATURES:
        assert feature.group, feature
        assert feature.formula, feature
        assert feature.unit, feature
        assert feature.source, feature


def test_the_look_back_covers_every_finite_window():
    assert max(f.first_bar for f in d.FEATURES if not f.recursive) < d.LOOKBACK_BARS


def test_definitions_import_nothing_heavy():
    code = (
        "import sys, include.mltrading.features.definitions;"
        "print(sorted({'numpy', 'talib', 'pandas'} & set(sys.modules)))"
    )
    assert _run(code) == "[]"


@pytest.mark.parametrize("feature", d.FEATURES, ids=lambda feature: feature.column)
def test_a_feature_begins_at_its_first_bar(feature):
    rng = np.random.default_rng(5)
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.01, 500)))
    values = compute(close * 0.999, close * 1.004, close * 0.995, close, rng.uniform(1, 2, 500))
    column = values[:, d.COLUMNS.index(feature.column)]
    assert np.isnan(column[: feature.first_bar]).all()
    assert np.isfinite(column[feature.first_bar :]).all()


def test_computing_imports_neither_pandas_nor_polars_and_leaves_both_importable():
    code = (
        "import sys, include.mltrading.features.compute;"
        "print('pandas' in sys.modules, 'polars' in sys.modules);"
        "import pandas; print(pandas.Series([1.0]).sum());"
        "import importlib.util; importlib.util.find_spec('polars')"
    )
    assert _run(code).split() == ["False", "False", "1.0"]


def test_loading_leaves_a_pandas_that_is_already_there_alone():
    code = (
        "import sys, pandas; before = pandas;"
        "import include.mltrading.features.compute as m, numpy;"
        "assert sys.modules['pandas'] is before;"
        "print(m.talib.SMA(pandas.Series(numpy.arange(3.0)), 2).iloc[-1])"
    )
    assert _run(code) == "1.5"
