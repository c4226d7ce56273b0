"""Airflow's own commands, from a command of ours."""

from __future__ import annotations

import subprocess
import sys

from include.mltrading.errors import MLTradingError


def airflow(*arguments: str) -> None:
    """Run an Airflow command, its output where ours goes. Raises MLTradingError when it fails."""
    command = [sys.executable, "-m", "airflow", *arguments]
    code = subprocess.run(command, check=False).returncode  # noqa: S603 - our own command
    if code:
        raise MLTradingError(f"`airflow {' '.join(arguments[:2])}` ended with {code}: see above")
