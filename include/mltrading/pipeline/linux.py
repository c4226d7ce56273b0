"""What Linux knows of processes and Python's library does not tell."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator
from pathlib import Path

# include/uapi/linux/prctl.h
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
_LIBC = ctypes.CDLL(None, use_errno=True)


def kill_group(pid: int) -> None:
    """Kill a process and its group; either may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    # Before setsid() the child has no group of its own yet.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_leftovers(ours: set[int]) -> None:
    """Kill what finished children left: as a subreaper's, orphans are the runner's own children now."""
    while orphans := [pid for pid in children() if pid not in ours]:
        for pid in orphans:
            kill_group(pid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def children() -> Iterator[int]:
    """The pids of this process's children."""
    if not _has_children():
        return  # spares the walk through /proc
    me = os.getpid()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            pid = int(entry.name)
            if parent_of(pid) == me:
                yield pid


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def parent_of(pid: int) -> int:
    """The parent of a process; 0 when that process is gone."""
    try:
        # pid (name) state ppid ...; the name may hold anything, a parenthesis too
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def prctl(option: int, value: int) -> None:
    """Linux's prctl(2). Raises OSError."""
    if _LIBC.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
