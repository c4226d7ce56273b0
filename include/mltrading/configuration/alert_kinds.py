"""What can be told: the kinds of alerts, and how each behaves."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

Kind = Literal[
    "run_late",
    "ticks_missed",
    "tick_not_started",
    "run_failed",
    "database_unreachable",
    "database_refused",
    "yahoo_unreachable",
    "data_stale",
    "bars_missing",
    "bars_withheld",
    "symbol_silent",
    "bars_refused",
    "split_applied",
    "split_undecided",
    "history_differs",
    "timeouts_high",
    "connections_high",
    "memory_low",
    "disk_low",
    "input_refused",
    "migration_edited",
    "sources_mixed",
]
Severity = Literal["critical", "warning", "info"]


class Manner(NamedTuple):
    """How a kind behaves.

    lasting: it is open until it is over, and that is mailed too; else it is an event, told once. reminds: it
    is mailed again when it is still so after the quiet period. by_run: only when another run has met it.
    """

    severity: Severity
    lasting: bool
    reminds: bool
    by_run: bool = False


_EVENT, _ONCE, _REMINDS, _BY_RUN = (False, False), (True, False), (True, True), (True, False, True)
MANNERS: dict[Kind, Manner] = {
    "run_late": Manner("warning", *_ONCE),
    "ticks_missed": Manner("info", *_EVENT),
    "tick_not_started": Manner("critical", *_REMINDS),
    "run_failed": Manner("critical", *_BY_RUN),
    "database_unreachable": Manner("critical", *_REMINDS),
    "database_refused": Manner("critical", *_REMINDS),
    "yahoo_unreachable": Manner("critical", *_REMINDS),
    "data_stale": Manner("critical", *_REMINDS),
    "bars_missing": Manner("warning", *_REMINDS),
    "bars_withheld": Manner("warning", *_ONCE),
    "symbol_silent": Manner("warning", *_ONCE),
    "bars_refused": Manner("warning", *_EVENT),
    "split_applied": Manner("info", *_EVENT),
    "split_undecided": Manner("warning", *_ONCE),
    "history_differs": Manner("critical", *_ONCE),
    "timeouts_high": Manner("warning", *_REMINDS),
    "connections_high": Manner("warning", *_REMINDS),
    "memory_low": Manner("warning", *_REMINDS),
    "disk_low": Manner("critical", *_REMINDS),
    "input_refused": Manner("warning", *_EVENT),
    "migration_edited": Manner("critical", *_REMINDS),
    "sources_mixed": Manner("critical", *_REMINDS),
}
assert tuple(MANNERS) == get_args(Kind)  # noqa: S101 - the two lists above are one
