"""All configuration at once: what a run would trip over, told before it starts."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from croniter import croniter

from include.mltrading.config import DagId, load_deployments
from include.mltrading.errors import MLTradingError, UsageError
from include.mltrading.features.definitions import COLUMNS
from include.mltrading.market.symbols import read_symbols_file
from include.mltrading.market.yahoo import REQUESTS_PER_FETCH
from include.mltrading.settings import Settings
from include.mltrading.store.migrations import available
from include.mltrading.store.queries import query

COLLECTION: DagId = "yahoo-production-data-collection"


def validate(settings: Settings) -> None:
    """Check the deployments file, its schedules, the symbols file and its size, and the SQL files.

    Raises UsageError with every problem found, one a line.
    """
    problems: list[str] = []

    def check(action: Callable[[], object]) -> None:
        try:
            action()
        except MLTradingError as error:
            problems.append(str(error))

    check(lambda: _check_schedules(settings))
    check(lambda: read_symbols_file(settings.symbols_file))
    if not problems:
        check(lambda: _check_rate(settings))
    check(available)
    check(_check_columns)
    if problems:
        raise UsageError("\n".join(problems))


def _check_schedules(settings: Settings) -> None:
    problems = []
    for name, schedule in load_deployments(settings.deployments_file).schedule_types.items():
        where = f"{settings.deployments_file}: schedule_types.{name}"
        if schedule.cron is not None and not croniter.is_valid(schedule.cron):
            problems.append(
                f"{where}.cron {schedule.cron!r} is no cron expression: give minute, hour, day, month and "
                "weekday, such as 0 9-16 * * 1-5"
            )
        try:
            datetime.now(UTC).astimezone(ZoneInfo(schedule.timezone))
        except (KeyError, ValueError, OSError):
            problems.append(
                f"{where}.timezone {schedule.timezone!r} is unknown: give a name such as America/New_York"
            )
    if problems:
        raise UsageError("\n".join(problems))


def _check_rate(settings: Settings) -> None:
    """Can every symbol be asked for within the collection's expected run time?"""
    symbols = len(read_symbols_file(settings.symbols_file))
    rate = settings.yahoo_requests_per_second
    minutes = load_deployments(settings.deployments_file).deployments[COLLECTION].expected_runtime_minutes
    largest = math.floor(minutes * 60 * rate / REQUESTS_PER_FETCH)
    if symbols > largest:
        requests = symbols * REQUESTS_PER_FETCH
        needed_rate = math.ceil(requests / minutes / 60 * 100) / 100
        raise UsageError(
            f"{symbols} symbols need {requests / rate / 60:.1f} minutes at {rate:g} requests per second, and "
            f"the collection is expected to take {minutes:g}: the largest universe that fits has {largest} "
            f"symbols; raise MLTRADING_YAHOO_REQUESTS_PER_SECOND to {needed_rate:g} "
            "(the vendor blocks who asks too fast), or raise expected_runtime_minutes of "
            f"{COLLECTION} in {settings.deployments_file} to {math.ceil(requests / rate / 60)}"
        )


def _check_columns() -> None:
    missing = [column for column in COLUMNS if f"%({column})s" not in query("upsert_features")]
    if missing:
        raise UsageError(f"sql/upsert_features.sql lacks {', '.join(missing)}")
