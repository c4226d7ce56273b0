"""Runs and spans in the words of the mails."""

from __future__ import annotations

from datetime import timedelta

from include.mltrading.airflow.facts import RunFacts


def spoken(run: RunFacts) -> str:
    """A run as people know it."""
    from include.mltrading.alerts.render import in_new_york

    return f"{tick_name(run).lower()} {in_new_york(run.tick)}"


def tick_name(run: RunFacts) -> str:
    """What its instant is."""
    return "Triggered" if run.run_type == "manual" else "Tick"


def minutes(span: timedelta) -> str:
    """A span, as exact as it is of use."""
    seconds = span.total_seconds()
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
