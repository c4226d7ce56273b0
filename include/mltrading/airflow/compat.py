"""What differs between Airflow's majors: the functions of the one that is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import airflow

MAJOR = int(airflow.__version__.partition(".")[0])

# Both have the same functions (tests/unit/test_compat.py), so either gives the types.
if TYPE_CHECKING or MAJOR == 2:
    from include.mltrading.airflow.airflow2.runs import *  # noqa: F403
else:
    from include.mltrading.airflow.airflow3.runs import *  # noqa: F403
