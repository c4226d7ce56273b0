"""All configuration at once: what a run would trip over, told before it starts.

Files are checked by themselves, against the code and against each other. Nothing is connected to.
"""

from __future__ import annotations

import ast
import difflib
import math
import os
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeVar, get_args
from zoneinfo import ZoneInfo

from croniter import croniter
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import BaseModel

from include.mltrading.airflow_settings import DEFAULT_FILE, AirflowSettings, read_settings
from include.mltrading.alerts import smtp
from include.mltrading.config import DagId, Deployments, ScheduleType
from include.mltrading.errors import MLTradingError, UsageError
from include.mltrading.features.definitions import COLUMNS
from include.mltrading.market.symbols import read_symbols_file
from include.mltrading.market.yahoo import REQUESTS_PER_FETCH
from include.mltrading.pipeline.task import MAX_BATCHES
from include.mltrading.settings import PROJECT_ROOT, Settings
from include.mltrading.store.connection import NOT_A_URL
from include.mltrading.store.migrations import available
from include.mltrading.store.queries import SQL_FOLDER, query
from include.mltrading.yaml_file import read_yaml

COLLECTION: DagId = "yahoo-production-data-collection"
FEATURES: DagId = "feature-engineering-production-subprocess"
DAGS_FOLDER = PROJECT_ROOT / "dags"

VARIABLES = {
    "MLTRADING_DATABASE_URL", "MLTRADING_YAHOO_URL", "MLTRADING_YAHOO_REQUESTS_PER_SECOND",
    "MLTRADING_SYMBOLS_FILE", "MLTRADING_DEPLOYMENTS_FILE", "MLTRADING_SYMBOLS_PER_TASK",
    "MLTRADING_SYMBOL_SECONDS", "MLTRADING_SYMBOL_CPU_SECONDS", "MLTRADING_SYMBOL_MEMORY_MB",
    "MLTRADING_COLLECT_MEMORY_MB", "MLTRADING_SMTP_URL", "MLTRADING_STATE_DIR",
    "MLTRADING_VERIFY_DATABASE",
}  # fmt: skip
# Set by the program itself, for its own processes.
INTERNAL_VARIABLES = {
    "MLTRADING_TASK", "MLTRADING_TASK_SECONDS", "MLTRADING_PYTHON", "MLTRADING_STACK", "MLTRADING_BENCH",
}  # fmt: skip

_CONNECTIONS = {"mltrading_db": "postgres", "smtp_default": "smtp"}
# Of the 25 connections of the database role, the web server may hold ten and the fetches five.
_MOST_SLOTS = {
    "yahoo_api": (5, "Yahoo is asked with five fetches at a time"),
    "market_db": (10, "that many of the database role's 25 connections are left for computations"),
}
# Any week will do that has neither a holiday nor a change of the clocks.
_MONDAY = datetime(2026, 1, 5, tzinfo=UTC)

_Content = TypeVar("_Content")


def validate(settings: Settings, environment: Mapping[str, str] = os.environ) -> None:
    """Raise UsageError with every problem of the configuration, one a line."""
    found = [*_of_environment(settings, environment), *_of_files(settings)]
    if found:
        raise UsageError("\n".join(found))


def problems(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Every problem of the configuration; wrong variables of the environment are among them."""
    settings, found = Settings.read(environment)
    return [*found, *_of_environment(settings, environment), *_of_files(settings)]


def _of_environment(settings: Settings, environment: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(set(environment) - VARIABLES - INTERNAL_VARIABLES):
        if name.startswith("MLTRADING_"):
            near = difflib.get_close_matches(name, sorted(VARIABLES), 1)
            meant = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(VARIABLES))}"
            yield f"{name}: no such setting, {meant}"
    try:
        conninfo_to_dict(settings.database_url or "")
    except ProgrammingError:
        yield NOT_A_URL  # libpq's own words repeat the URL, password and all
    if settings.smtp_url is not None:
        try:
            smtp.parts_of(settings.smtp_url)
        except UsageError as error:
            yield str(error)


def _of_files(settings: Settings) -> list[str]:
    found: list[str] = []

    def read(action: Callable[[], _Content]) -> _Content | None:
        try:
            return action()
        except MLTradingError as error:
            found.extend(str(error).splitlines())
            return None

    deployments, wrong = read(lambda: read_yaml(settings.deployments_file, Deployments)) or (None, [])
    found.extend(wrong)
    symbols = read(lambda: read_symbols_file(settings.symbols_file))
    airflow, wrong = read(lambda: read_settings(DEFAULT_FILE)) or (None, [])
    found.extend(wrong)
    dags = read(_read_dags)
    found.extend(f"{settings.deployments_file}: {text}" for text in _of_deployments(settings, deployments))
    if symbols is not None:
        found.extend(_size(settings, symbols, deployments))
    if dags is not None:
        found.extend(_dag_ids(dags))
        if airflow is not None:
            found.extend(f"{DEFAULT_FILE}: {text}" for text in _of_airflow(airflow, dags))
    read(available)
    found.extend(_statements())
    return found


# deployments.yaml ---------------------------------------------------------------------------------------


class _Schedules(BaseModel):
    """The schedules alone, which can be looked at whatever is wrong with the rest of the file."""

    schedule_types: dict[str, ScheduleType]


def _of_deployments(settings: Settings, deployments: Deployments | None) -> Iterator[str]:
    """What is wrong with values that are fine by themselves."""
    schedules: _Schedules | Deployments | None = deployments
    if schedules is None:
        with suppress(UsageError):
            schedules, _ = read_yaml(settings.deployments_file, _Schedules)
    wrong = [] if schedules is None else list(_schedules(schedules.schedule_types))
    yield from wrong
    if deployments is not None:
        yield from () if wrong else _ticks(deployments)
        yield from _order(deployments)


def _schedules(schedule_types: Mapping[str, ScheduleType]) -> Iterator[str]:
    for name, schedule in schedule_types.items():
        if schedule.cron is not None and not croniter.is_valid(schedule.cron):
            yield (
                f"schedule_types.{name}.cron {schedule.cron!r} is no cron expression: give minute, hour, "
                "day, month and weekday, such as 0 9-16 * * 1-5"
            )
        try:
            datetime.now(UTC).astimezone(ZoneInfo(schedule.timezone))
        except (KeyError, ValueError, OSError):
            yield (
                f"schedule_types.{name}.timezone {schedule.timezone!r} is unknown: give a name such as "
                "America/New_York"
            )


def _ticks(deployments: Deployments) -> Iterator[str]:
    """Each collection is followed by one features run, and both are through before the next tick."""
    collections, features = (_week(deployments.schedule(dag_id)) for dag_id in (COLLECTION, FEATURES))
    if not collections or not features:
        return
    after = Counter(bisect_right(collections, tick) for tick in features)
    lonely = [tick for place, tick in enumerate(collections, start=1) if after[place] != 1]
    if lonely:
        yield (
            f"deployments.{FEATURES} has not one tick after each of {COLLECTION}, as after "
            f"{lonely[0]:%a %H:%M}: give its schedule_type the same hours, some minutes later"
        )
    gap = min((later - earlier for earlier, later in pairwise(collections)), default=timedelta(days=1))
    for dag_id in (COLLECTION, FEATURES):
        if deployments.sla(dag_id) >= gap:
            yield (
                f"deployments.{dag_id}.expected_runtime_minutes: its limit of "
                f"{_minutes(deployments.sla(dag_id))} minutes is no less than {_minutes(gap)} between two "
                "ticks"
            )
    if timedelta(minutes=deployments.pipeline.gate_timeout_minutes) >= gap:
        yield (
            f"pipeline.gate_timeout_minutes must be less than the {_minutes(gap)} minutes between two ticks: "
            "the next run waits for its own collection"
        )


def _week(schedule: ScheduleType) -> list[datetime]:
    """The ticks of a week, in the schedule's time zone."""
    if schedule.cron is None:
        return []
    start = _MONDAY.replace(tzinfo=ZoneInfo(schedule.timezone))
    ticks = croniter(schedule.cron, start - timedelta(seconds=1))
    found: list[datetime] = []
    while (tick := ticks.get_next(datetime)) < start + timedelta(days=7) and len(found) < 7 * 24 * 60:
        found.append(tick)
    return found


def _order(deployments: Deployments) -> Iterator[str]:
    """Thresholds that must not overtake each other."""
    pipeline, thresholds = deployments.pipeline, deployments.alerts.thresholds
    timeout = timedelta(minutes=pipeline.gate_timeout_minutes)
    if timeout < deployments.sla(COLLECTION):
        yield (
            f"pipeline.gate_timeout_minutes {_minutes(timeout)} is less than a collection may take "
            f"({_minutes(deployments.sla(COLLECTION))}): the gate would give up before it is late"
        )
    if timedelta(minutes=pipeline.gate_missing_run_minutes) >= timeout:
        yield "pipeline.gate_missing_run_minutes must be less than gate_timeout_minutes"
    if timedelta(seconds=pipeline.gate_poke_seconds) >= timeout:
        yield "pipeline.gate_poke_seconds must be less than gate_timeout_minutes"
    if thresholds.missing_bars_after_minutes < pipeline.finality_delay_minutes:
        yield (
            "alerts.thresholds.missing_bars_after_minutes must be at least pipeline.finality_delay_minutes: "
            "no bar is stored as final before that"
        )
    for dag_id, deployment in deployments.deployments.items():
        if timedelta(hours=deployment.alert_threshold_hours) <= deployments.sla(dag_id):
            yield (
                f"deployments.{dag_id}.alert_threshold_hours must be more than what a run may take "
                f"({_minutes(deployments.sla(dag_id))} minutes): its data would be stale before it is late"
            )
    priorities = Counter(deployment.priority for deployment in deployments.deployments.values())
    twice = [priority for priority, count in priorities.items() if count > 1]
    if twice:
        yield f"deployments: priority {twice[0]} stands more than once; it orders who goes first"
    shown = Counter(deployments.dashboard.primary_deployments)
    for dag_id in [dag_id for dag_id, count in shown.items() if count > 1]:
        yield f"dashboard.primary_deployments: {dag_id} stands there more than once"
    if pipeline.start_date > datetime.now(UTC).date():
        yield f"pipeline.start_date {pipeline.start_date} lies in the future: nothing runs before it"


def _minutes(duration: timedelta) -> str:
    return f"{duration / timedelta(minutes=1):g}"


# symbols.txt --------------------------------------------------------------------------------------------


def _size(settings: Settings, symbols: list[str], deployments: Deployments | None) -> Iterator[str]:
    """Is the universe one that can be mapped, and asked for within the collection's expected run time?"""
    if len(symbols) > MAX_BATCHES * settings.symbols_per_task:
        yield (
            f"{len(symbols)} symbols make more mapped tasks than Airflow takes ({MAX_BATCHES}): set "
            f"MLTRADING_SYMBOLS_PER_TASK to at least {math.ceil(len(symbols) / MAX_BATCHES)}"
        )
    if deployments is None:
        return
    rate = settings.yahoo_requests_per_second
    minutes = deployments.deployments[COLLECTION].expected_runtime_minutes
    largest = math.floor(minutes * 60 * rate / REQUESTS_PER_FETCH)
    if len(symbols) > largest:
        requests = len(symbols) * REQUESTS_PER_FETCH
        needed_rate = math.ceil(requests / minutes / 60 * 100) / 100
        yield (
            f"{len(symbols)} symbols need {requests / rate / 60:.1f} minutes at {rate:g} requests per "
            f"second, and the collection is expected to take {minutes:g}: the largest universe that fits has "
            f"{largest} symbols; raise MLTRADING_YAHOO_REQUESTS_PER_SECOND to {needed_rate:g} "
            "(the vendor blocks who asks too fast), or raise expected_runtime_minutes of "
            f"{COLLECTION} in {settings.deployments_file} to {math.ceil(requests / rate / 60)}"
        )


# DAG files and airflow_settings.yaml --------------------------------------------------------------------


class _DagFile(NamedTuple):
    path: Path
    dag_id: str | None
    pools: set[str]


def _read_dags() -> list[_DagFile]:
    """What the DAG files say, read as text: importing them would need Airflow."""
    paths = sorted(DAGS_FOLDER.glob("*.py"))
    if not paths:
        raise UsageError(f"{DAGS_FOLDER}: has no DAG file; restore it from the repository")
    found = []
    for path in paths:
        try:
            nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        except UnicodeDecodeError:
            raise UsageError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
        except SyntaxError as error:
            raise UsageError(f"{path}, line {error.lineno}: {error.msg}") from None
        ids = [
            node.value.value
            for node in nodes
            if isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Constant)
            and any(isinstance(target, ast.Name) and target.id == "DAG_ID" for target in node.targets)
        ]
        pools = {
            str(node.value.value)
            for node in nodes
            if isinstance(node, ast.keyword) and node.arg == "pool" and isinstance(node.value, ast.Constant)
        }
        found.append(_DagFile(path, str(ids[0]) if ids else None, pools))
    return found


def _dag_ids(dags: list[_DagFile]) -> Iterator[str]:
    """The ids in deployments.yaml are those of DagId: each has its file, and each file is one of them."""
    known: tuple[str, ...] = get_args(DagId)
    for dag in dags:
        if dag.dag_id not in known:
            yield f"{dag.path}: DAG_ID {dag.dag_id!r} is not in deployments.yaml: {', '.join(known)}"
        elif dag.path.stem != dag.dag_id.replace("-", "_"):
            yield f"{dag.path}: name it {dag.dag_id.replace('-', '_')}.py, after its DAG"
    for missing in sorted(set(known) - {dag.dag_id for dag in dags}):
        yield f"{DAGS_FOLDER}: no file has the DAG {missing} of deployments.yaml"


def _of_airflow(airflow: AirflowSettings, dags: list[_DagFile]) -> Iterator[str]:
    slots = {pool.pool_name: pool.pool_slot for pool in airflow.pools}
    for name in sorted(set().union(*(dag.pools for dag in dags)) - set(slots)):
        yield f"pool {name} is missing: tasks of the DAGs run in it and would wait for ever"
    for name, (most, reason) in _MOST_SLOTS.items():
        if slots.get(name, 0) > most:
            yield f"pool {name} has {slots[name]} slots: give at most {most}, {reason}"
    types = {item.conn_id: item.conn_type for item in airflow.connections}
    for item in airflow.connections:
        if item.conn_uri is not None:
            types[item.conn_id] = (
                item.conn_uri.get_secret_value().partition(":")[0].replace("postgresql", "postgres")
            )
    for conn_id, conn_type in _CONNECTIONS.items():
        if conn_id not in types:
            yield f"connection {conn_id} is missing: give it the type {conn_type}"
        elif types[conn_id] != conn_type:
            yield f"connection {conn_id} has the type {types[conn_id]}, the code needs {conn_type}"


# sql/ ---------------------------------------------------------------------------------------------------


def _statements() -> Iterator[str]:
    """Every statement that the code names is there, and those of the features name every column."""
    named = {
        name
        for path in (PROJECT_ROOT / "include" / "mltrading").rglob("*.py")
        for name in re.findall(
            r"\b(?:query|_composed|_value)\([^)\"]*\"(\w+)\"", path.read_text(encoding="utf-8")
        )
    }
    for name in sorted(named):
        if not (SQL_FOLDER / f"{name}.sql").is_file():
            yield f"{SQL_FOLDER / name}.sql is missing: restore it from the repository"
    for name in ("upsert_features", "copy_features", "select_features"):
        if (SQL_FOLDER / f"{name}.sql").is_file():
            words = set(re.findall(r"\w+", query(name)))
            lacking = [column for column in COLUMNS if column not in words]
            if lacking:
                yield f"{SQL_FOLDER / name}.sql lacks {', '.join(lacking)}"
