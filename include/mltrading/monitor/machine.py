"""Memory and disks of the machine that this process runs on."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from include.mltrading.configuration.settings import PROJECT_ROOT


@dataclass(frozen=True)
class Memory:
    """Bytes; free: available without swapping."""

    free: int
    total: int


@dataclass(frozen=True)
class Disk:
    """A file system by one of its folders; bytes."""

    folder: str
    free: int
    total: int


def memory() -> Memory:
    """The machine's memory."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    kilobytes = {words[0].rstrip(":"): int(words[1]) for words in lines}
    return Memory(kilobytes["MemAvailable"] * 1024, kilobytes["MemTotal"] * 1024)


def disks() -> list[Disk]:
    """The disks that the product writes to, or runs on, each once."""
    state = os.environ.get("MLTRADING_STATE_DIR") or str(PROJECT_ROOT)
    folders = [state, tempfile.gettempdir(), str(PROJECT_ROOT), "/"]
    found: dict[int, Disk] = {}
    for folder in folders:
        if Path(folder).is_dir():
            usage = shutil.disk_usage(folder)
            found.setdefault(Path(folder).stat().st_dev, Disk(folder, usage.free, usage.total))
    return list(found.values())
