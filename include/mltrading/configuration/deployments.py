"""include/config/deployments.yaml as checked values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Literal, get_args
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field

from include.mltrading.configuration.alert_kinds import Kind
from include.mltrading.configuration.settings import Settings
from include.mltrading.configuration.yaml_file import Section, load_yaml

DagId = Literal[
    "complete-data-and-features-ondemand",
    "yahoo-production-data-collection",
    "feature-engineering-production-subprocess",
]
LOAD: DagId = "complete-data-and-features-ondemand"
COLLECTION: DagId = "yahoo-production-data-collection"
FEATURES: DagId = "feature-engineering-production-subprocess"

Text = Annotated[str, Field(min_length=1, max_length=200)]
# The DAGs bear them as tags, and Airflow takes no longer ones.
Tag = Annotated[str, Field(min_length=1, max_length=100)]
# Nothing here lasts for years, and the largest numbers are no durations any more.
_MOST = 1_000_000
Positive = Annotated[float, Field(gt=0, le=_MOST)]
Seconds = Annotated[int, Field(ge=1, le=_MOST)]
Minutes = Annotated[int, Field(ge=0, le=_MOST)]


class Deployment(Section):
    """What one DAG is called, when it runs and how long it may take."""

    display_name: Text = Field(description="The DAG's name in the Airflow UI, the monitor and mails.")
    category: Tag = Field(description="A tag of the DAG.")
    priority: Annotated[int, Field(ge=1, le=99)] = Field(
        description="1 is the highest: order in the monitor, and who goes first in Airflow's pools."
    )
    schedule_type: Tag = Field(description="One of `schedule_types`; also a tag of the DAG.")
    expected_runtime_minutes: Positive = Field(
        description="Minutes that a usual run takes; the SLA is a multiple of it."
    )
    alert_threshold_hours: Annotated[float, Field(gt=0, le=1000)] = Field(
        description="Hours of trading after which its data is stale; of the load, hours after a failure."
    )


class RefreshIntervals(Section):
    """Seconds between two refreshes of each part of the monitor."""

    pipeline_status: Seconds = Field(
        description="Seconds between two refreshes of pipeline status and performance."
    )
    system_health: Seconds = Field(description="Seconds between two refreshes of system health.")
    data_freshness: Seconds = Field(description="Seconds between two refreshes of data freshness.")


class Dashboard(Section):
    """What the monitor shows, in the order of priority."""

    primary_deployments: list[DagId] = Field(
        description="The DAGs that the monitor shows, by their priority."
    )
    max_visible_deployments: Annotated[int, Field(ge=1)] = Field(
        description="Most DAGs that the monitor shows."
    )
    refresh_intervals: RefreshIntervals


class ScheduleType(Section):
    """A cron expression in its time zone; no cron means that only people start the DAG."""

    cron: str | None = Field(
        description="Cron expression of the ticks; null: no schedule, people trigger the DAG."
    )
    timezone: Text = Field(description="Time zone of the cron expression, by its IANA name.")
    description: Text = Field(description="The schedule in words.")

    def tick_until(self, instant: datetime) -> datetime:
        """The last tick at or before an instant, UTC; there must be a cron."""
        return self.tick_before(instant + timedelta(microseconds=1))

    def tick_before(self, instant: datetime) -> datetime:
        """The last tick before an instant, UTC; there must be a cron."""
        return self._tick(instant, "get_prev")

    def tick_after(self, instant: datetime) -> datetime:
        """The first tick after an instant, UTC; there must be a cron."""
        return self._tick(instant, "get_next")

    def _tick(self, instant: datetime, direction: str) -> datetime:
        from croniter import croniter

        local = datetime.fromtimestamp(instant.timestamp(), ZoneInfo(self.timezone))
        tick: datetime = getattr(croniter(self.cron or "", local), direction)(datetime)
        return tick.astimezone(UTC)


class Pipeline(Section):
    """Settings of the pipeline itself that the deployments share."""

    owner: Text = Field(description="Owner of the DAGs and their tasks.")
    tags: list[Tag] = Field(description="Tags of every DAG, beside its category and its schedule type.")
    # A date in quotes is one too.
    start_date: Annotated[date, Field(strict=False)] = Field(
        description="First day that a backfill may cover. Missed ticks are not replayed."
    )
    finality_delay_minutes: Minutes = Field(
        description="A bar is final when its end + so many minutes <= the end of the run's window."
    )
    minimum_good_share: Annotated[float, Field(ge=0, le=1)] = Field(
        description="`publish_*` fails when a smaller share of the symbols was served."
    )
    retries: Annotated[int, Field(ge=0, le=100)] = Field(description="Retries of a failed task.")
    retry_delay_seconds: Seconds = Field(
        description="Seconds before the first retry; each further one waits longer."
    )
    gate_poke_seconds: Seconds = Field(description="Seconds between two looks of `wait_for_bars`.")
    gate_timeout_minutes: Positive = Field(description="Minutes after which `wait_for_bars` gives up.")
    gate_missing_run_minutes: Annotated[float, Field(ge=0, le=_MOST)] = Field(
        description="Minutes after its tick that the collection run may be missing; then the gate skips."
    )


Share = Annotated[float, Field(gt=0, le=1)]


def _plain_address(text: str) -> str:
    # Many servers take no other characters, and one address that is not taken would keep the mail from all.
    if not re.fullmatch(r"[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9.-]+", text):
        raise ValueError(
            f"{text!r} is no plain mail address: give name@example.com, without a name before it"
        )
    return text


Address = Annotated[str, AfterValidator(_plain_address)]


class Thresholds(Section):
    """From where on something counts as wrong; shares are of the whole."""

    missing_bars_after_minutes: Minutes = Field(
        description="Minutes after its end that a bar may come late before it counts as missing."
    )
    timeouts_share: Share = Field(description="Share of a run's symbols that took too long.")
    connections_share: Share = Field(description="Share of the database role's connections that are in use.")
    memory_free_share: Share = Field(description="Least share of the memory that is free.")
    disk_free_share: Share = Field(description="Least share of a disk that is free.")


class Alerts(Section):
    """Who is told of what, and how often."""

    sla_factor: Annotated[float, Field(ge=1, le=100)] = Field(
        description="A run is late after this multiple of `expected_runtime_minutes`."
    )
    addressees: Annotated[list[Address], Field(min_length=1)] = Field(
        description="Mail addresses of the people on duty."
    )
    thresholds: Thresholds
    quiet_minutes: dict[Kind, Minutes] = Field(
        description="For each kind: minutes after a mail without another one about the same condition."
    )

    def contradictions(self) -> Iterator[str]:
        """Every kind has a quiet period."""
        if missing := sorted(set(get_args(Kind)) - set(self.quiet_minutes)):
            yield f"quiet_minutes lacks {', '.join(missing)}"

    def quiet(self, kind: Kind) -> timedelta:
        """So long after a mail the same condition is not mailed again."""
        return timedelta(minutes=self.quiet_minutes[kind])


def _clock_time(value: object) -> time:
    # Without quotes YAML reads 14:00 as the number 840.
    if isinstance(value, str) and re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", value):
        return time.fromisoformat(value)
    raise ValueError(f'{value!r} is no time of the day: give one in quotes, such as "14:00"')


ClockTime = Annotated[time, BeforeValidator(_clock_time)]


class SpecialDay(Section):
    """A day on which the exchange is closed, opens late or closes early, against its calendar (New York)."""

    # A date in quotes is one too.
    day: Annotated[date, Field(strict=False)] = Field(description="The day, in New York.")
    closed: bool = Field(default=False, description="No trading on this day.")
    opens: ClockTime | None = Field(default=None, description="Late opening, New York time in quotes.")
    closes: ClockTime | None = Field(default=None, description="Early close, New York time in quotes.")

    def contradictions(self) -> Iterator[str]:
        """Either closed, or other hours within those of a usual session."""
        if self.closed == (self.opens is not None or self.closes is not None):
            yield f'{self.day}: give either closed: true, or opens or closes, such as closes: "14:00"'
        opens, closes = self.opens or time(9, 30), self.closes or time(16)
        if not time(9, 30) <= opens < closes <= time(16):
            yield f"{self.day}: give opens before closes, both from 09:30 to 16:00 in New York"


class Exchange(Section):
    """What the exchange decided after its calendar was published."""

    special_days: list[SpecialDay] = Field(
        default_factory=list, description="Days that the exchange's published calendar has otherwise."
    )

    def contradictions(self) -> Iterator[str]:
        """Each day stands there once."""
        days = Counter(special.day for special in self.special_days)
        for day in sorted(day for day, count in days.items() if count > 1):
            yield f"special_days has {day} more than once: leave one"


class Deployments(Section):
    """The whole file."""

    deployments: dict[DagId, Deployment]
    dashboard: Dashboard
    schedule_types: dict[str, ScheduleType]
    pipeline: Pipeline
    exchange: Exchange = Exchange()
    alerts: Alerts

    def contradictions(self) -> Iterator[str]:
        """Every DAG stands in it, with a schedule that is there."""
        if missing := sorted(set(get_args(DagId)) - set(self.deployments)):
            yield f"deployments lacks {', '.join(missing)}: add what is lacking"
        for dag_id, deployment in self.deployments.items():
            if deployment.schedule_type not in self.schedule_types:
                yield (
                    f"deployments.{dag_id}.schedule_type {deployment.schedule_type!r} is not one of "
                    f"schedule_types: {', '.join(self.schedule_types)}"
                )

    def sla(self, dag_id: DagId) -> timedelta:
        """How long a run of the DAG may take before it counts as late."""
        return timedelta(minutes=self.deployments[dag_id].expected_runtime_minutes) * self.alerts.sla_factor

    def schedule(self, dag_id: DagId) -> ScheduleType:
        """The schedule type that the DAG's deployment names."""
        return self.schedule_types[self.deployments[dag_id].schedule_type]


def load_deployments(path: Path | None = None) -> Deployments:
    """The checked content of deployments.yaml (default: the file that the settings name).

    Raises UsageError with each wrong key, one a line, what is wrong with it and what to do.
    """
    return load_yaml(path or Settings.from_environment().deployments_file, Deployments)
