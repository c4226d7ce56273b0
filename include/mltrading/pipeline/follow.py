"""A task's process ends with what stands between it and Airflow, whatever of that is killed.

`timeout`, its parent, is told by the kernel when Airflow's process dies, and passes that on. Nobody passes on
that `timeout` itself was killed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from types import FrameType

from include.mltrading.errors import MLTradingError
from include.mltrading.pipeline.linux import PR_SET_PDEATHSIG, parent_of, prctl

# As `timeout --kill-after` in the operator's command: for a process that does not react.
_KILL_AFTER_SECONDS = 10


def follow(parents: Sequence[int]) -> None:
    """Be stopped (SIGTERM), and 10 s later killed, when the parent dies.

    parents: the processes that must be above this one, nearest first. Raises MLTradingError when one of them
    has gone before.
    """
    signal.signal(signal.SIGHUP, _abandoned)
    prctl(PR_SET_PDEATHSIG, signal.SIGHUP)
    above = os.getppid()
    for parent in parents:
        if above != parent:
            raise MLTradingError("the process that started this task is gone; Airflow starts it again")
        above = parent_of(parent)


def _abandoned(number: int, frame: FrameType | None) -> None:
    signal.alarm(_KILL_AFTER_SECONDS)  # SIGALRM ends a process that stands still
    os.kill(os.getpid(), signal.SIGTERM)
