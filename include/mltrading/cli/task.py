"""What a task of a DAG does, in its own process: `python -m include.mltrading task`.

The operator hands over one JSON document in MLTRADING_TASK; whatever a user typed into a trigger form is in
it as data and is checked here.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from include.mltrading.configuration.settings import Settings
from include.mltrading.configuration.symbols import MAX_BATCHES, batches, parse_symbols, read_symbols_file
from include.mltrading.errors import (
    DatabaseRefusedError,
    DatabaseUnreachableError,
    MLTradingError,
    SchemaError,
    UsageError,
)
from include.mltrading.pipeline.batch import STARTUP_SECONDS, run_batch, worst_exit_code
from include.mltrading.pipeline.child import Limits
from include.mltrading.pipeline.exit_codes import (
    EXIT_DATABASE_REFUSED,
    EXIT_HOPELESS,
    EXIT_NO_DATABASE,
    EXIT_SKIP,
)
from include.mltrading.pipeline.run import Run
from include.mltrading.pipeline.runner import Outcome
from include.mltrading.pipeline.steps import COLLECT, FEATURES
from include.mltrading.pipeline.window import Window, on_demand_window, parse_instant, sessions_in

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """The document in MLTRADING_TASK. params: the run's params as Airflow holds them."""

    step: str
    run: Run
    manual: bool
    symbols: list[str] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str) -> Task:
        """Raises UsageError when the document is none of the operator's."""
        try:
            document = json.loads(text)
            run = document["run"]
            return cls(
                step=document["step"],
                run=Run(
                    dag_id=run["dag_id"],
                    run_id=run["run_id"],
                    try_number=int(run["try_number"]),
                    window_end=parse_instant(run["window_end"], "window_end"),
                    backfill=run["run_type"] == "backfill",
                ),
                manual=run["run_type"] == "manual",
                symbols=parse_symbols(document["symbols"]),
                params=document["params"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"MLTRADING_TASK is not a task document ({error!r}); the operator sets it"
            ) from None


def run_task(task: Task, settings: Settings) -> int:
    """Do one task; returns its exit code: 0, one of exit_codes, or the batch's (1, 2, 75).

    Raises MLTradingError.
    """
    step = _STEPS.get(task.step)
    if step is None:
        raise UsageError(f"MLTRADING_TASK: unknown step {task.step!r}, not one of {', '.join(_STEPS)}")
    try:
        return step(task, settings)
    except (DatabaseUnreachableError, DatabaseRefusedError) as error:
        print(f"error: {error}")
        unreachable = isinstance(error, DatabaseUnreachableError)
        return EXIT_NO_DATABASE if unreachable else EXIT_DATABASE_REFUSED
    except SchemaError as error:
        from include.mltrading.alerts.checks import refused_schema
        from include.mltrading.configuration.deployments import load_deployments

        refused_schema(settings, load_deployments(settings.deployments_file), task.run, error)
        raise
    except MLTradingError as error:
        if not error.hopeless or error.exit_code != MLTradingError.exit_code:
            raise
        print(f"error: {error}")
        return EXIT_HOPELESS


def _prepare_database(task: Task, settings: Settings) -> int:
    from include.mltrading.operations.validate import validate
    from include.mltrading.store.connection import connect
    from include.mltrading.store.migrations import require_current_schema

    validate(settings)
    with connect(settings) as connection:
        require_current_schema(connection)
    print("the database schema is up to date and the configuration is valid")
    return 0


def _plan_symbols(task: Task, settings: Settings) -> int:
    """Print the batches as one JSON line: the only thing that travels from task to task."""
    # A wrong period or date is told now, not once per symbol.
    on_demand_window(task.params, task.run.window_end).require_served()
    symbols = parse_symbols(task.params.get("symbols") or []) or read_symbols_file(settings.symbols_file)
    planned = batches(symbols, settings.symbols_per_task)
    if len(planned) > MAX_BATCHES:
        least = math.ceil(len(symbols) / MAX_BATCHES)
        raise UsageError(
            f"{len(symbols)} symbols make {len(planned)} mapped tasks, Airflow takes {MAX_BATCHES}: "
            f"set MLTRADING_SYMBOLS_PER_TASK to at least {least}"
        )
    print(json.dumps(planned))
    return 0


def _check_session(task: Task, settings: Settings) -> int:
    from include.mltrading.market.calendar import is_session, new_york_date

    day = new_york_date(task.run.window_end)
    if is_session(day):
        print(f"{day} is a session of the exchange")
        return 0
    if task.manual:
        print(f"{day} is no session; somebody asked for this run, so it collects the sessions before")
        return 0
    print(f"{day} is no session of the exchange: nothing to collect, this run is skipped")
    return EXIT_SKIP


def _collect_symbol(task: Task, settings: Settings) -> int:
    from include.mltrading.configuration.deployments import load_deployments
    from include.mltrading.market import calendar, yahoo
    from include.mltrading.pipeline.collect import FETCH_SECONDS, Collection
    from include.mltrading.store.request_clock import ON_DEMAND, SCHEDULED

    if "data_period" in task.params:
        window = Window(task.run.window_end, sessions=sessions_in(str(task.params["data_period"])))
    else:
        window = on_demand_window(task.params, task.run.window_end)
    deployments = load_deployments(settings.deployments_file)
    scheduled = any(
        deployments.schedule(dag_id).cron is not None
        for dag_id in deployments.deployments
        if dag_id == task.run.dag_id
    )
    work = Collection(
        settings,
        task.run,
        window,
        timedelta(minutes=deployments.pipeline.finality_delay_minutes),
        priority=SCHEDULED if scheduled else ON_DEMAND,
        ends_at=_ends_at(),
    )
    # Loaded here once, shared by every forked child.
    yahoo.preload()
    calendar.preload()
    outcomes = run_batch(
        settings,
        task.run,
        COLLECT,
        task.symbols,
        work,
        limits=Limits(FETCH_SECONDS, STARTUP_SECONDS, FETCH_SECONDS, settings.collect_memory_mb),
    )
    if any(outcome.failure for outcome in outcomes):
        from include.mltrading.alerts.checks import after_batch

        asked = task.params.get("symbols") or read_symbols_file(settings.symbols_file)
        after_batch(settings, deployments, task.run, outcomes, len(asked))
    return _exit_code(outcomes)


def _ends_at() -> float:
    """time.monotonic() at which the operator ends this task; infinite where nobody does."""
    text = os.environ.get("MLTRADING_TASK_SECONDS", "")
    try:
        return time.monotonic() + float(text) if text else float("inf")
    except ValueError:
        raise UsageError(f"MLTRADING_TASK_SECONDS={text!r}: give a number; the operator sets it") from None


def _compute_features(task: Task, settings: Settings) -> int:
    from include.mltrading.pipeline.features import FeatureComputation

    full = bool(task.params.get("initial_run") or task.params.get("recompute_features"))
    outcomes = run_batch(
        settings,
        task.run,
        FEATURES,
        task.symbols,
        FeatureComputation(settings, task.run, full=full),
        limits=feature_limits(settings),
    )
    return _exit_code(outcomes)


def feature_limits(settings: Settings) -> Limits:
    """What computing one symbol's features may use."""
    return Limits(
        settings.symbol_seconds, STARTUP_SECONDS, settings.symbol_cpu_seconds, settings.symbol_memory_mb
    )


def _exit_code(outcomes: Sequence[Outcome]) -> int:
    failures = {outcome.failure for outcome in outcomes if outcome.exit_code}
    if failures == {DatabaseUnreachableError.__name__}:
        return EXIT_NO_DATABASE
    worst = worst_exit_code(outcomes)
    hopeless = all(outcome.hopeless for outcome in outcomes if outcome.exit_code)
    return EXIT_HOPELESS if hopeless and worst == MLTradingError.exit_code else worst


def _publish(step: str) -> Callable[[Task, Settings], int]:
    def run(task: Task, settings: Settings) -> int:
        from include.mltrading.alerts.checks import after_publish
        from include.mltrading.configuration.deployments import load_deployments
        from include.mltrading.pipeline.publish import publish

        deployments = load_deployments(settings.deployments_file)
        pipeline = deployments.pipeline
        quality = None
        if step == COLLECT:
            from include.mltrading.pipeline.quality import run_quality

            delay = timedelta(minutes=pipeline.finality_delay_minutes)
            quality = run_quality(settings, task.run, task.symbols, delay)
            print(quality)
        after_publish(settings, deployments, task.run, step, task.symbols, quality)
        # Last, since the last line is what a failure is told with.
        print(publish(settings, task.run, step, task.symbols, pipeline.minimum_good_share))
        return 0

    return run


def _verify(*steps: str) -> Callable[[Task, Settings], int]:
    def run(task: Task, settings: Settings) -> int:
        from include.mltrading.pipeline.publish import verify

        for counted in verify(settings, task.run, steps, task.symbols):
            print(counted)
        return 0

    return run


_STEPS: Mapping[str, Callable[[Task, Settings], int]] = {
    "prepare_database": _prepare_database,
    "plan_symbols": _plan_symbols,
    "check_session": _check_session,
    COLLECT: _collect_symbol,
    FEATURES: _compute_features,
    "publish_bars": _publish(COLLECT),
    "publish_features": _publish(FEATURES),
    "verify_bars": _verify(COLLECT),
    "verify_features": _verify(FEATURES),
    "verify_pipeline": _verify(COLLECT, FEATURES),
}
