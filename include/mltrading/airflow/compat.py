"""What differs between Airflow's majors: the functions of the one that is installed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import airflow

MAJOR = int(airflow.__version__.partition(".")[0])

# Both have the same functions (tests/unit/test_compat.py), so either gives the types.
if TYPE_CHECKING or MAJOR == 2:
    from include.mltrading.airflow.airflow2.runs import *  # noqa: F403
else:
    from include.mltrading.airflow.airflow3.runs import *  # noqa: F403


def of_this_major(module: str) -> Any:
    """The module of that name in the room of the major that is installed: for what few processes need."""
    return import_module(f"include.mltrading.airflow.airflow{MAJOR}.{module}")
