"""What a measurement says, and how it is shown."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from include.standalone.state import PROJECT, StandaloneError


@dataclass(frozen=True)
class Figure:
    """One measured value. at_most: the target, None where there is none."""

    part: str
    what: str
    value: float
    unit: str
    at_most: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        return None if self.at_most is None else self.value <= self.at_most

    def __str__(self) -> str:
        verdict = {None: "", True: "met", False: "MISSED"}[self.met]
        target = "" if self.at_most is None else f"<= {self.at_most:g}"
        line = f"{self.part:<9} {self.what:<66} {self.value:>10.3f} {self.unit:<6} {target:>9} {verdict}"
        return line.rstrip()


def table(figures: Sequence[Figure]) -> str:
    """All figures, one a line, with their targets."""
    head = f"{'part':<9} {'what':<66} {'measured':>10} {'':<6} {'target':>9}"
    return "\n".join([head, "-" * len(head), *map(str, figures)])


@dataclass(frozen=True)
class Used:
    """What a command took, its children included."""

    seconds: float
    cpu_seconds: float


def timed(environment: Mapping[str, str], *arguments: str) -> Used:
    """Run this Python with `arguments`, interpreter start included. Raises StandaloneError when it fails."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(  # noqa: S603 - our own command lines, no shell
        [sys.executable, *arguments],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        last = (done.stderr.strip() or "no output").splitlines()[-1]
        raise StandaloneError(f"`{' '.join(arguments[:6])}` ended with {done.returncode}: {last}")
    return Used(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def median(runs: Sequence[Used]) -> Used:
    """The median time, and the median processor time."""
    return Used(
        statistics.median(run.seconds for run in runs), statistics.median(run.cpu_seconds for run in runs)
    )
