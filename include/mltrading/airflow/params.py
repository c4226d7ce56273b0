"""Params of the DAGs: the trigger forms explain and check what is typed into them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from airflow.exceptions import ParamValidationError
from airflow.providers.common.compat.sdk import Param

from include.mltrading.errors import UsageError
from include.mltrading.pipeline.window import PERIODS, SESSIONS_PATTERN, on_demand_window

_LONGEST_MESSAGE = 300


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


def find_problem(params: Any, conf: Mapping[str, Any], logical_date: datetime) -> str | None:
    """What is wrong with a configuration of a DAG with these params, naming the param; None = nothing."""
    unknown = [name for name in conf if name not in params]
    if unknown:
        return f"Invalid input for param {unknown[0]}: no such param; the params are {', '.join(params)}"
    typed = copy.deepcopy(params)
    try:
        typed.update(conf)
        values = typed.validate()
    except ParamValidationError as error:
        text = str(error).splitlines()[0]
        return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]} …"
    if "period" not in values:
        return None
    name = "start"
    try:
        window = on_demand_window(values, logical_date)
        name = "end"
        window.first_instant(None)
    except UsageError as error:
        return f"Invalid input for param {name}: {error}"
    return None
