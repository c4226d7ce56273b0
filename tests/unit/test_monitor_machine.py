"""What is looked at of the machine itself."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from include.mltrading.configuration.settings import PROJECT_ROOT
from include.mltrading.monitor.machine import disks


def test_the_projects_own_disk_is_looked_at_where_state_and_temporary_files_lie_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLTRADING_STATE_DIR", "/dev/shm")  # noqa: S108 - another file system on any Linux
    monkeypatch.setattr(tempfile, "tempdir", "/dev/shm")  # noqa: S108
    devices = {Path(disk.folder).stat().st_dev for disk in disks()}
    assert {Path("/dev/shm").stat().st_dev, PROJECT_ROOT.stat().st_dev} <= devices  # noqa: S108
