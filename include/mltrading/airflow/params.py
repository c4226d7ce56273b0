"""Params of the DAGs: the trigger forms explain and check what is typed into them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException, Param, ParamValidationError

from include.mltrading.airflow.compat import window_end
from include.mltrading.errors import UsageError
from include.mltrading.pipeline.window import (
    PERIODS,
    SESSIONS_PATTERN,
    Window,
    on_demand_window,
    parse_instant,
    sessions_in,
)

TOO_DEEP = "Invalid configuration: it is nested too deeply"
_LONGEST_MESSAGE = 300
_LONGEST_NAME = 80
_CLOCKS_DIFFER = timedelta(days=1)


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


def refuse_bad_input(context: Any) -> None:
    """What the first task of each run does before its work: the command line and other DAGs have not checked.

    Raises AirflowFailException, which nobody retries, when the run was triggered with what a form refuses.
    """
    run = context["dag_run"]
    problem = find_problem(context["dag"], {} if run.conf is None else run.conf, window_end(run))
    if problem is not None:
        raise AirflowFailException(problem)


def find_problem(dag: Any, conf: Any, logical_date: datetime | str) -> str | None:
    """What is wrong with triggering a DAG so, in one line; None = nothing.

    conf: the configuration as it was given; it names the params that are not to have their defaults.
    """
    problem = _find_problem(dag, conf, logical_date)
    if problem is None:
        return None
    line = problem.splitlines()[0]
    return line if len(line) <= _LONGEST_MESSAGE else f"{line[:_LONGEST_MESSAGE]} …"


def _find_problem(dag: Any, conf: Any, logical_date: datetime | str) -> str | None:
    params = dag.params
    try:
        instant = parse_instant(str(logical_date), "logical date")
    except UsageError as error:
        return f"Invalid {error}"
    if instant > datetime.now(UTC) + _CLOCKS_DIFFER:
        # Airflow would let the run wait until then.
        return f"Invalid logical date {instant.isoformat()}: it lies in the future; leave it out"
    if instant < dag.start_date:
        # Airflow would call the run a success without any of its tasks.
        return (
            f"Invalid logical date {instant.isoformat()}: it lies before the DAG's start, "
            f"{dag.start_date:%Y-%m-%d} (pipeline.start_date); leave it out"
        )
    if not isinstance(conf, Mapping):
        return f'Invalid configuration {conf!r}: give params by name, such as {{"symbols": ["AAPL"]}}'
    for name in conf:
        if name not in params:
            shown = repr(name)[1:-1][:_LONGEST_NAME]
            return f"Invalid input for param {shown}: no such param; the params are {', '.join(params)}"
    typed = copy.deepcopy(params)
    try:
        typed.update(conf)
        values = typed.validate()
    except ParamValidationError as error:
        return str(error)
    except RecursionError:
        return TOO_DEEP
    try:
        if "period" in values:
            on_demand_window(values, instant).require_served()
        elif "data_period" in values:
            Window(instant, sessions=sessions_in(values["data_period"])).require_served()
    except UsageError as error:
        name = "start" if str(error).startswith("start") else "end"
        return f"Invalid input for param {name}: {error}" if name in values else f"Invalid input: {error}"
    return None
