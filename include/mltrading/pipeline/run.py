"""A run: who asked for the work, up to which instant it looks, and where that is recorded."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from include.mltrading.store.ledger import Attempt

# A run later than this after the end of its window repeats the past: what is running now is not its business.
_LIVE_FOR = timedelta(hours=1)


@dataclass(frozen=True)
class Run:
    """One run of a DAG, or one call of the command line.

    window_end: the instant up to which it works (UTC): the end of the data interval of a scheduled run,
    the instant of the trigger for a manual one. backfill: repeats the past on purpose.
    """

    dag_id: str
    run_id: str
    try_number: int
    window_end: datetime
    backfill: bool = False

    @classmethod
    def from_command_line(cls, end: datetime | None) -> Run:
        """A run of its own for each call."""
        now = datetime.now(UTC)
        return cls("cli", f"cli__{now.isoformat(timespec='seconds')}__{uuid.uuid4().hex[:6]}", 1, end or now)

    @property
    def correlation_id(self) -> str:
        """The same twelve characters in every log line and row of the run, whichever process writes them."""
        return uuid.uuid5(uuid.NAMESPACE_OID, f"{self.dag_id}/{self.run_id}").hex[:12]

    def is_live(self) -> bool:
        """Whether the run may store the bar that is still running."""
        return not self.backfill and datetime.now(UTC) < self.window_end + _LIVE_FOR

    def attempt(self, step: str) -> Attempt:
        """The ledger's name of one step of this try."""
        return Attempt(self.dag_id, self.run_id, step, self.try_number, self.correlation_id, self.window_end)
