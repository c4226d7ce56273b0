"""All configuration at once: what a run would trip over, told before it starts.

Each file is checked by itself; those that are right by themselves against each other and the code. Nothing is
connected to.
"""

from __future__ import annotations

import difflib
import math
import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import TypeVar, get_args
from zoneinfo import ZoneInfo

from croniter import croniter
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from include.mltrading.configuration.airflow_settings import (
    DEFAULT_FILE,
    AirflowSettings,
    ConnectionSetting,
    load_settings,
)
from include.mltrading.configuration.deployments import (
    COLLECTION,
    FEATURES,
    DagId,
    Deployments,
    ScheduleType,
    load_deployments,
)
from include.mltrading.configuration.settings import Settings
from include.mltrading.configuration.smtp_url import smtp_parts
from include.mltrading.configuration.symbols import MAX_BATCHES, read_symbols_file
from include.mltrading.configuration.yaml_file import more_than_once
from include.mltrading.errors import MLTradingError, UsageError
from include.mltrading.market.calendar import NEW_YORK, planned_sessions
from include.mltrading.market.yahoo import REQUESTS_PER_FETCH
from include.mltrading.store.connection import NOT_A_URL

VARIABLES = {
    "MLTRADING_DATABASE_URL", "MLTRADING_YAHOO_URL", "MLTRADING_YAHOO_REQUESTS_PER_SECOND",
    "MLTRADING_SYMBOLS_FILE", "MLTRADING_DEPLOYMENTS_FILE", "MLTRADING_SYMBOLS_PER_TASK",
    "MLTRADING_SYMBOL_SECONDS", "MLTRADING_SYMBOL_CPU_SECONDS", "MLTRADING_SYMBOL_MEMORY_MB",
    "MLTRADING_COLLECT_MEMORY_MB", "MLTRADING_SMTP_URL", "MLTRADING_STATE_DIR",
    "MLTRADING_VERIFY_DATABASE",
}  # fmt: skip
# Set by the program itself, for its own processes.
INTERNAL_VARIABLES = {
    "MLTRADING_TASK", "MLTRADING_TASK_SECONDS", "MLTRADING_TASK_PROCESS", "MLTRADING_TASK_PARENTS",
    "MLTRADING_PYTHON", "MLTRADING_STACK",
}  # fmt: skip

# Those that the tasks of the DAGs run in.
POOLS = {"yahoo_api", "market_db", "sensors"}
_CONNECTIONS = {"mltrading_db": "postgres", "smtp_default": "smtp"}
# Of the 25 connections of the database role, the web server may hold ten and the fetches five.
_MOST_SLOTS = {
    "yahoo_api": (5, "Yahoo is asked with five fetches at a time"),
    "market_db": (10, "that many of the database role's 25 connections are left for computations"),
}
# One week of winter and one of summer: time zones that agree in one may not in the other.
_MONDAYS = (datetime(2026, 1, 5, tzinfo=UTC), datetime(2026, 7, 6, tzinfo=UTC))

_Content = TypeVar("_Content")


def validate(settings: Settings, environment: Mapping[str, str] = os.environ) -> None:
    """Raise UsageError with every problem of the configuration, one a line."""
    found = [*_of_environment(settings, environment), *_of_files(settings)]
    if found:
        raise UsageError("\n".join(found))


def problems(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Every problem of the configuration; wrong variables of the environment are among them."""
    settings, wrong = Settings.read(environment)
    files = _of_files(settings, numbers_are_right=not wrong)
    return [*wrong, *_of_environment(settings, environment), *files]


def _of_environment(settings: Settings, environment: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(set(environment) - VARIABLES - INTERNAL_VARIABLES):
        if name.startswith("MLTRADING_"):
            known = {variable.removeprefix("MLTRADING_"): variable for variable in sorted(VARIABLES)}
            near = difflib.get_close_matches(name.removeprefix("MLTRADING_"), known, 1)
            meant = f"did you mean {known[near[0]]}?" if near else f"known are {', '.join(sorted(VARIABLES))}"
            yield f"{name}: no such setting, {meant}"
    try:
        conninfo_to_dict(settings.database_url or "")
    except (ProgrammingError, UnicodeError):
        yield NOT_A_URL  # libpq's own words repeat the URL, password and all
    if settings.smtp_url is not None:
        try:
            smtp_parts(settings.smtp_url)
        except UsageError as error:
            yield str(error)


def _of_files(settings: Settings, *, numbers_are_right: bool = True) -> list[str]:
    found: list[str] = []

    def read(load: Callable[[], _Content]) -> _Content | None:
        try:
            return load()
        except MLTradingError as error:
            found.extend(str(error).splitlines())
            return None

    deployments = read(lambda: load_deployments(settings.deployments_file))
    symbols = read(lambda: read_symbols_file(settings.symbols_file))
    airflow = read(lambda: load_settings(DEFAULT_FILE))
    if deployments:
        found.extend(f"{settings.deployments_file}: {text}" for text in _of_deployments(deployments))
    if symbols and numbers_are_right:
        found.extend(_number(settings, symbols))
        if deployments:
            found.extend(_duration(settings, symbols, deployments))
    if airflow:
        found.extend(f"{DEFAULT_FILE}: {text}" for text in _of_airflow(airflow))
    return found


# deployments.yaml ---------------------------------------------------------------------------------------


def _of_deployments(deployments: Deployments) -> Iterator[str]:
    """What is wrong with values that are fine by themselves."""
    wrong = list(_schedules(deployments))
    yield from wrong
    if not wrong:  # or there are no ticks to be counted
        yield from _ticks_agree(deployments)
    yield from _gate(deployments)
    yield from _rest(deployments)
    yield from _special_days(deployments)


def _special_days(deployments: Deployments) -> Iterator[str]:
    """Each changes a session that the exchange's calendar plans."""
    for special in deployments.exchange.special_days:
        key = f"exchange.special_days: {special.day}"
        try:
            planned = planned_sessions(special.day, special.day)
        except UsageError as error:
            yield f"{key}: {error}; correct the date"
            continue
        if not planned:
            yield (
                f"{key}, a {special.day:%A}, is no session by the exchange's calendar, so that there is "
                "nothing to change; correct the date or remove the entry"
            )
            continue
        opens, closes = (at.astimezone(NEW_YORK).time() for at in planned[0][1:])
        if (special.opens or opens) >= closes or (special.closes or closes) > closes:
            yield (
                f"{key}: the session is planned from {opens:%H:%M} to {closes:%H:%M}; give opens and closes "
                "within that, or closed: true"
            )


def _schedules(deployments: Deployments) -> Iterator[str]:
    for name, schedule in deployments.schedule_types.items():
        if schedule.cron is not None and not _is_cron(schedule.cron):
            yield (
                f"schedule_types.{name}.cron {schedule.cron!r} is no cron expression: give minute, hour, "
                "day, month and weekday that come at some time, such as 0 9-16 * * 1-5"
            )
        if not _is_timezone(schedule.timezone):
            yield (
                f"schedule_types.{name}.timezone {schedule.timezone!r} is unknown: give a name such as "
                "America/New_York"
            )


def _is_cron(text: str) -> bool:
    try:
        croniter(text, _MONDAYS[0]).get_next(datetime)
    except ValueError:  # there are days that never come too
        return False
    return True


def _is_timezone(name: str) -> bool:
    try:
        datetime.now(UTC).astimezone(ZoneInfo(name))
    except (KeyError, ValueError, OSError):
        return False
    return True


def _ticks_agree(deployments: Deployments) -> Iterator[str]:
    """Each collection is followed by one features run, and each run is over before the next tick."""
    collections, features = (_ticks(deployments.schedule(dag_id)) for dag_id in (COLLECTION, FEATURES))
    after = Counter(bisect_right(collections, tick) for tick in features)
    lonely = [tick for place, tick in enumerate(collections, start=1) if after[place] != 1]
    if features and deployments.schedule(COLLECTION).cron is None:
        yield (
            f"deployments.{COLLECTION}.schedule_type {deployments.deployments[COLLECTION].schedule_type!r} "
            "has no cron, and the features wait for its ticks: give it one that has"
        )
    elif features and lonely:
        yield (
            f"deployments.{FEATURES} has not one tick after each of {COLLECTION}, as after "
            f"{lonely[0]:%a %H:%M}: give its schedule_type the same hours, some minutes later"
        )
    for dag_id in get_args(DagId):
        ticks, limit = _ticks(deployments.schedule(dag_id)), deployments.sla(dag_id)
        if not ticks:
            continue
        # A week, where they are further apart.
        gap = min([timedelta(days=7), *(later - earlier for earlier, later in pairwise(ticks))])
        if limit >= gap:
            yield (
                f"deployments.{dag_id}.expected_runtime_minutes: its limit of {_minutes(limit)} minutes is "
                f"no less than {_minutes(gap)} between two ticks; lower it, or alerts.sla_factor"
            )
        if dag_id == FEATURES and _timeout(deployments) >= gap:
            yield (
                f"pipeline.gate_timeout_minutes must be less than the {_minutes(gap)} minutes between two "
                "ticks: the next run waits for its own collection"
            )


@cache
def _ticks(schedule: ScheduleType) -> list[datetime]:
    """The ticks of the weeks that are looked at, in the schedule's time zone; none without a cron."""
    if schedule.cron is None:
        return []
    found: list[datetime] = []
    for monday in _MONDAYS:
        start = monday.replace(tzinfo=ZoneInfo(schedule.timezone))
        ticks = croniter(schedule.cron, start - timedelta(seconds=1))
        of_week: list[datetime] = []
        while (tick := ticks.get_next(datetime)) < start + timedelta(days=7) and len(of_week) < 7 * 24 * 60:
            of_week.append(tick)
        found += of_week
    return found


def _timeout(deployments: Deployments) -> timedelta:
    return timedelta(minutes=deployments.pipeline.gate_timeout_minutes)


def _gate(deployments: Deployments) -> Iterator[str]:
    """The gate waits for a whole collection, and looks more than once."""
    pipeline, timeout = deployments.pipeline, _timeout(deployments)
    if timeout < deployments.sla(COLLECTION):
        yield (
            f"pipeline.gate_timeout_minutes {_minutes(timeout)} is less than a collection may "
            f"take ({_minutes(deployments.sla(COLLECTION))}): the gate would give up before it is late"
        )
    if pipeline.gate_missing_run_minutes >= pipeline.gate_timeout_minutes:
        yield (
            f"pipeline.gate_missing_run_minutes {pipeline.gate_missing_run_minutes:g} must be less than "
            f"gate_timeout_minutes {_minutes(timeout)}: lower it"
        )
    if timedelta(seconds=pipeline.gate_poke_seconds) >= timeout:
        yield (
            f"pipeline.gate_poke_seconds {pipeline.gate_poke_seconds} must be less than the "
            f"{_minutes(timeout)} minutes of gate_timeout_minutes: lower it"
        )


def _rest(deployments: Deployments) -> Iterator[str]:
    pipeline = deployments.pipeline
    if deployments.alerts.thresholds.missing_bars_after_minutes < pipeline.finality_delay_minutes:
        yield (
            "alerts.thresholds.missing_bars_after_minutes must be at least pipeline.finality_delay_minutes: "
            "no bar is stored as final before that"
        )
    for priority in more_than_once(item.priority for item in deployments.deployments.values()):
        yield f"deployments: priority {priority} stands more than once; it orders who goes first"
    for dag_id in more_than_once(deployments.dashboard.primary_deployments):
        yield f"dashboard.primary_deployments: {dag_id} stands there more than once"
    if pipeline.start_date > datetime.now(UTC).date():
        yield f"pipeline.start_date {pipeline.start_date} lies in the future: nothing runs before it"
    for dag_id in get_args(DagId):
        hours, limit = deployments.deployments[dag_id].alert_threshold_hours, deployments.sla(dag_id)
        if timedelta(hours=hours) <= limit:
            yield (
                f"deployments.{dag_id}.alert_threshold_hours must be more than what a run may take "
                f"({_minutes(limit)} minutes): its data would be stale before it is late"
            )


def _minutes(duration: timedelta) -> str:
    return f"{duration / timedelta(minutes=1):g}"


# symbols.txt --------------------------------------------------------------------------------------------


def _number(settings: Settings, symbols: list[str]) -> Iterator[str]:
    """Can the universe be mapped?"""
    if len(symbols) > MAX_BATCHES * settings.symbols_per_task:
        yield (
            f"{len(symbols)} symbols make more mapped tasks than Airflow takes ({MAX_BATCHES}): set "
            f"MLTRADING_SYMBOLS_PER_TASK to at least {math.ceil(len(symbols) / MAX_BATCHES)}"
        )


def _duration(settings: Settings, symbols: list[str], deployments: Deployments) -> Iterator[str]:
    """Can the universe be asked for within the collection's expected run time?"""
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


# airflow_settings.yaml -----------------------------------------------------------------------------------


def _of_airflow(airflow: AirflowSettings) -> Iterator[str]:
    for name in sorted(POOLS - {pool.pool_name for pool in airflow.pools}):
        yield f"pool {name} is missing: tasks of the DAGs run in it and would wait for ever"
    for pool in airflow.pools:
        most, reason = _MOST_SLOTS.get(pool.pool_name, (pool.pool_slot, ""))
        if pool.pool_slot > most:
            yield f"pool {pool.pool_name} has {pool.pool_slot} slots: give at most {most}, {reason}"
    types = {connection.conn_id: _type(connection) for connection in airflow.connections}
    for conn_id, type_needed in _CONNECTIONS.items():
        if conn_id not in types:
            yield f"connection {conn_id} is missing: give it the type {type_needed}"
        elif types[conn_id] != type_needed:
            yield f"connection {conn_id} has the type {types[conn_id]}, the code needs {type_needed}"


def _type(connection: ConnectionSetting) -> str | None:
    if connection.conn_uri is None:
        return connection.conn_type
    return connection.conn_uri.get_secret_value().partition(":")[0].replace("postgresql", "postgres")
