"""Params of the DAGs: the trigger forms explain and check what is typed into them."""

from __future__ import annotations

from collections.abc import Sequence

from airflow.providers.common.compat.sdk import Param

from include.mltrading.pipeline.window import PERIODS, SESSIONS_PATTERN


def symbols_param(universe: Sequence[str]) -> Param:
    """Which symbols of the universe a run is about."""
    return Param(
        # Not None, and "array" first: Airflow 2.11 shows and refills a multi-select only for these.
        [],
        type=["array", "null"],
        items={"type": "string", "enum": list(universe)},
        examples=list(universe),
        uniqueItems=True,
        title="Symbols",
        description="Only these symbols; empty = all of the symbols file.",
    )


def data_period_param() -> Param:
    """How many sessions a collection asks for."""
    return Param(
        "3d",
        type="string",
        # "$" alone would let a line end pass.
        pattern=rf"{SESSIONS_PATTERN}(?!\n)",
        title="Data period",
        description="Sessions up to the run's tick, 1d to 60d. A symbol with a gap gets a longer window.",
    )


def initial_run_param() -> Param:
    """Whether all features are computed anew."""
    return Param(
        False,
        type="boolean",
        title="Initial run",
        description="Compute all feature rows anew instead of those of new and changed bars.",
    )


def load_params() -> dict[str, Param]:
    """The span of an on-demand load, and whether all features are computed anew."""
    return {
        "period": Param(
            "1y",
            type="string",
            enum=list(PERIODS),
            title="Period",
            description="How far back to load; Yahoo serves hourly bars for 730 days. Unused with a start.",
        ),
        "start": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Start",
            description="First day to load (YYYY-MM-DD), instead of a period.",
        ),
        "end": Param(
            None,
            type=["null", "string"],
            format="date",
            title="End",
            description="Load up to the beginning of this day (UTC); empty = up to now.",
        ),
        "recompute_features": Param(
            False,
            type="boolean",
            title="Recompute features",
            description="Compute all feature rows anew instead of those of new and changed bars.",
        ),
    }
