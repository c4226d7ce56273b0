"""Looking at what is stored: the health of the database, the story of a run, a full recomputation."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from include.mltrading.configuration.deployments import load_deployments
from include.mltrading.configuration.settings import Settings
from include.mltrading.configuration.symbols import read_symbols_file
from include.mltrading.errors import MLTradingError, UsageError
from include.mltrading.pipeline.quality import missing_bars, silent_symbols, withheld_hours, without
from include.mltrading.store.connection import Connection, connect
from include.mltrading.store.migrations import require_current_schema
from include.mltrading.store.queries import query

CHECKED_SESSIONS = 10  # so far back `check` looks for missing bars


def health(settings: Settings) -> dict[str, Any]:
    """Database, freshness, recent features, last good backup and query time, queries with milliseconds."""
    symbols = read_symbols_file(settings.symbols_file)
    with connect(settings) as connection:
        require_current_schema(connection)
        latest, latest_ms = _timed(lambda: _value(connection, "check/check_latest_bar"))
        recent, recent_ms = _timed(lambda: _value(connection, "check/check_recent_features"))
        _, symbols_ms = _timed(lambda: connection.execute(query("check/check_symbol_times")).fetchall())
        newest = connection.execute(query("bars/newest_bars"), {"symbols": symbols}).fetchall()
        quarantined = _value(connection, "quarantine/count_quarantined")
        last_backup = _value(connection, "backup/last_backup")
        delay = timedelta(minutes=load_deployments(settings.deployments_file).pipeline.finality_delay_minutes)
        until = _last_tick()
        missing = missing_bars(connection, symbols, until, sessions=CHECKED_SESSIONS, finality_delay=delay)
        collected = [symbol for symbol, timestamp, _ in newest if timestamp is not None]
        withheld = withheld_hours(connection, collected, {hole.day for hole in missing}, until, delay)
    return {
        "database": "ok",
        "symbols": len(symbols),
        "latest_bar": latest,
        "symbols_without_bars": [symbol for symbol, timestamp, _ in newest if timestamp is None],
        "symbols_without_new_bars": silent_symbols(
            {symbol: timestamp for symbol, timestamp, _ in newest}, until
        ),
        "symbols_with_stale_features": [symbol for symbol, _, stale_from in newest if stale_from is not None],
        "oldest_newest_final_bar": min((row[1] for row in newest if row[1] is not None), default=None),
        "features_of_the_last_day": recent,
        "quarantined_bars": quarantined,
        "last_backup": last_backup,
        "last_backup_hours": None if last_backup is None else round(hours_since(last_backup), 1),
        "missing_bars": [{**row._asdict(), "day": row.day.isoformat()} for row in without(missing, withheld)],
        "bars_withheld": [
            {"day": day.isoformat(), "hours": len(hours), "symbols": len(set().union(*hours.values()))}
            for day, hours in sorted(withheld.items())
        ],
        "query_milliseconds": {
            "latest_bar": latest_ms,
            "recent_features": recent_ms,
            "latest_bar_by_symbol": symbols_ms,
        },
    }


def require_bars(settings: Settings, symbols: Sequence[str]) -> None:
    """Raise UsageError with the symbols that have no final bar: there is nothing to compute from."""
    with connect(settings) as connection:
        require_current_schema(connection)
        newest = connection.execute(query("bars/newest_bars"), {"symbols": list(symbols)}).fetchall()
    without = ",".join(symbol for symbol, timestamp, _ in newest if timestamp is None)
    if without:
        raise UsageError(
            f"no bar is stored of {without}: correct the name, or first run "
            f"`python -m include.mltrading collect --symbols {without} --period 1y`"
        )


def _last_tick() -> datetime:
    """The last full hour: what ended by then, the hourly collection can have brought."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


def story(settings: Settings, identifier: str) -> dict[str, Any]:
    """Everything recorded under a run id or a correlation id. failed: symbols whose latest try is not ok.

    Raises UsageError when nothing is.
    """
    with connect(settings) as connection:
        require_current_schema(connection)
        cursor = connection.execute(query("ledger/run_story"), {"id": identifier})
        names = [column.name for column in cursor.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in cursor]
        if not rows:
            raise UsageError(
                f"no run {identifier!r} in the ledger: give its run id, or the correlation id of its log"
            )
        effects = connection.execute(
            query("ledger/run_side_effects"), {"ids": sorted({row["correlation_id"] for row in rows})}
        ).fetchone()
    latest = {}
    for row in sorted(rows, key=lambda row: row["try"]):
        latest[row["dag_id"], row["run_id"], row["step"], row["symbol"]] = row
    failed = [row for row in latest.values() if row["status"] != "ok"]
    return {
        "steps": [{name: row[name] for name in names if row[name] is not None} for row in rows],
        "served": len(latest) - len(failed),
        "failed": [f"{row['step']} {row['symbol']}: {row['status']}: {row['error']}" for row in failed],
        "rows_written": sum(row["rows_written"] or 0 for row in latest.values()),
        "bars_revised": effects[0] if effects else 0,
        "bars_refused": effects[1] if effects else 0,
    }


def recompute(settings: Settings, count: int) -> dict[str, float]:
    """Recompute random symbols in full; the largest relative difference from the table per feature.

    Relative to the value, or to a thousandth of the feature's natural size (the close for dollars, 100 for
    percentages and the CCI, 1 for ratios) where the value is smaller than that.

    Raises MLTradingError when rows are missing, or a value is defined on one side only.
    """
    from include.mltrading.features.definitions import COLUMNS
    from include.mltrading.store import feature_table

    worst = dict.fromkeys(COLUMNS, 0.0)
    with connect(settings) as connection:
        require_current_schema(connection)
        symbols = feature_table.random_symbols(connection, count)
        if not symbols:
            raise MLTradingError(
                "no symbol has up-to-date features: run `python -m include.mltrading features`"
            )
        for symbol in symbols:
            for column, value in zip(COLUMNS, _differences(connection, symbol), strict=True):
                worst[column] = max(worst[column], value)
    return worst


def _differences(connection: Connection, symbol: str) -> list[float]:
    """Of one symbol, by feature."""
    import numpy as np

    from include.mltrading.features.compute import compute
    from include.mltrading.features.definitions import FEATURES
    from include.mltrading.store import feature_table, market_data
    from include.mltrading.store.arrays import as_start

    since = market_data.archived_before(connection, symbol)
    starts, bars = feature_table.select_bars(connection, symbol, full=True)
    first = 0 if since is None else int(np.searchsorted(starts, as_start(since)))
    features = feature_table.select_features(connection, symbol)
    stored = features.values[features.current]
    remedy = f"run `python -m include.mltrading features --full --symbols {symbol}`"
    if not np.array_equal(starts[first:], features.starts[features.current]):
        raise MLTradingError(
            f"{symbol}: {len(starts) - first} final bars but {len(stored)} feature rows; {remedy}"
        )
    expected = compute(*bars)[first:]
    if not np.array_equal(np.isnan(expected), np.isnan(stored)):
        raise MLTradingError(
            f"{symbol}: a feature is defined in the table or by the formula, but not by both; {remedy}"
        )
    # A value far below the size of what it is made of is rounding, not a value to divide by.
    in_dollars = np.array([feature.unit == "USD" for feature in FEATURES])
    in_hundreds = np.array([feature.unit.startswith(("percent", "index")) for feature in FEATURES])
    size = np.where(in_dollars, bars[3][first:, None], np.where(in_hundreds, 100.0, 1.0))
    scale = np.maximum(np.abs(expected), 1e-3 * size)
    worst: list[float] = np.nan_to_num(np.abs(stored - expected) / scale).max(axis=0).tolist()
    return worst


def _timed(ask: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.perf_counter()
    answer = ask()
    return answer, round((time.perf_counter() - begun) * 1000, 1)


def _value(connection: Connection, name: str) -> Any:
    row: Sequence[Any] | None = connection.execute(query(name)).fetchone()
    return row[0] if row else None


def with_age(instant: datetime | None) -> str:
    """An instant and how long ago it was, in words."""
    if instant is None:
        return "none yet"
    hours = hours_since(instant)
    return f"{instant} ({f'{hours:.1f} hours' if hours < 72 else f'{hours / 24:.1f} days'} ago)"


def hours_since(instant: datetime) -> float:
    """How long ago, in hours."""
    return (datetime.now(UTC) - instant).total_seconds() / 3600
