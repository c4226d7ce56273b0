"""What the monitor shows, as data: the types of a snapshot and their meaning."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from include.mltrading.monitor.machine import Disk, Memory

Part = Literal["pipelines", "performance", "freshness", "health"]
PARTS: tuple[Part, ...] = get_args(Part)
State = Literal["ok", "empty", "first_run"]
RunState = Literal["running", "ok", "failed"]
Freshness = Literal["fresh", "late", "stale", "silent", "empty"]


@dataclass(frozen=True)
class Step:
    """One step of a run. served, failed, running: symbols by their latest try.

    finished_at: None while any runs.
    """

    step: str
    started_at: datetime
    finished_at: datetime | None
    served: int
    failed: int
    running: int
    rows_written: int


@dataclass(frozen=True)
class Run:
    """A run as the ledger knows it. tick: the end of the window it works on.

    state: failed when any symbol failed in any step. seconds: from the start of the first symbol to the end
    of the last one, None while any runs; Airflow's own waiting before and after does not count.
    """

    run_id: str
    tick: datetime
    state: RunState
    started_at: datetime
    seconds: float | None
    steps: list[Step]


@dataclass(frozen=True)
class Success:
    """Of the runs that began lately and are over: how many had no failure, and their symbols, step by step.

    share: of the symbols that were served, None without any.
    """

    runs: int
    runs_ok: int
    symbols: int
    symbols_ok: int
    share: float | None


@dataclass(frozen=True)
class Pipeline:
    """One deployment. last_run: with the latest tick, None before its first; next_tick: None unscheduled."""

    dag_id: str
    display_name: str
    last_run: Run | None
    day: Success
    week: Success
    next_tick: datetime | None


@dataclass(frozen=True)
class RunTime:
    """How long a run took, in seconds; None while it runs."""

    run_id: str
    tick: datetime
    state: RunState
    seconds: float | None


@dataclass(frozen=True)
class Timing:
    """Run times of a deployment, oldest first; what is expected and what counts as late, in seconds."""

    dag_id: str
    display_name: str
    expected_seconds: float
    limit_seconds: float
    runs: list[RunTime]


@dataclass(frozen=True)
class Cost:
    """What a symbol's latest try in a pipeline's last run took."""

    dag_id: str
    run_id: str
    step: str
    symbol: str
    status: str
    seconds: float
    cpu_seconds: float | None
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class Performance:
    """Run times, and the costs of all symbols, the slowest first."""

    pipelines: list[Timing]
    costs: list[Cost]


@dataclass(frozen=True)
class Symbol:
    """How current a symbol is.

    newest_bar: start of its newest final bar. bars_behind: how many of the exchange's bars after that have
    ended; age_hours: how long the exchange was open since that bar's end; both None without any bar.
    missing: bars of the last sessions that are not stored as final ones, those behind included.
    features_behind: final bars whose features are not up to date, counted up to COUNT_TO. freshness: silent =
    no new bar for some sessions in which the others have theirs.
    """

    symbol: str
    newest_bar: datetime | None
    bars_behind: int | None
    age_hours: float | None
    missing: int
    features_behind: int
    freshness: Freshness


@dataclass(frozen=True)
class DataFreshness:
    """expected_bar: start of the newest bar that has ended.

    stale_before: a symbol whose newest bar is older is stale; it is the mails' rule. sessions: so many are
    looked through for missing bars. totals: symbols, by freshness (silent: where there are some), and
    those that lack features or bars.
    """

    expected_bar: datetime
    stale_before: datetime
    threshold_hours: float
    sessions: int
    count_to: int
    totals: dict[str, int]
    symbols: list[Symbol]


@dataclass(frozen=True)
class Table:
    """A table's size in bytes, indexes included, and about how many rows it holds."""

    name: str
    bytes: int
    rows: int


@dataclass(frozen=True)
class Growth:
    """Rows that the runs of the last day and week wrote in one step."""

    step: str
    day: int
    week: int


@dataclass(frozen=True)
class RateLimit:
    """Nobody asks the vendor before `paused_until`; refusals: pauses in a row; waiting: processes in line."""

    vendor: str
    paused_until: datetime | None
    refusals: int
    waiting: int


@dataclass(frozen=True)
class OpenAlert:
    """An alert that is not over."""

    severity: str
    kind: str
    subject: str
    opened_at: datetime
    dag_id: str | None
    run_id: str | None


@dataclass(frozen=True)
class Health:
    """The system. connections: of the pipeline's database role, against its limit. last_backup: verified."""

    database_bytes: int
    connections: int
    connections_limit: int
    tables: list[Table]
    growth: list[Growth]
    memory: Memory
    disks: list[Disk]
    rate_limits: list[RateLimit]
    alerts: list[OpenAlert]
    alerts_open: int
    quarantined: int
    quarantined_day: int
    last_backup: datetime | None


@dataclass(frozen=True)
class Snapshot:
    """What was asked for, as of one instant (UTC); a part that was not is None.

    source: yahoo, simulated, or None before the first bar.
    """

    as_of: datetime
    source: str | None
    state: State
    pipelines: list[Pipeline] | None = None
    performance: Performance | None = None
    freshness: DataFreshness | None = None
    health: Health | None = None

    def as_document(self) -> dict[str, Any]:
        """The snapshot as JSON values, times as ISO texts, without the parts that were not asked for."""
        return {name: value for name, value in plain(self).items() if value is not None}


def plain(value: Any) -> Any:
    """The value as JSON knows it: data classes as objects, times as ISO texts.

    Not by dataclasses.asdict, which copies each number: it took twice the processor time of all the rest.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list):
        return [plain(item) for item in value]
    fields = value if isinstance(value, dict) else vars(value)
    return {name: plain(item) for name, item in fields.items()}
