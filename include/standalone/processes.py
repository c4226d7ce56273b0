"""Processes of this machine: starting them, and knowing who they are beyond doubt."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypedDict

import psutil


@dataclass(frozen=True)
class Process:
    """A process that a reused pid cannot impersonate.

    pid: process id. started: clock ticks between boot and its start. boot: the kernel's boot id.
    """

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process running under `pid` now, None where there is none (a zombie counts as none)."""
        fields = _stat(pid)
        if fields is None or fields[0] in "ZX":
            return None
        return cls(pid, int(fields[19]), _boot())

    @classmethod
    def current(cls) -> Process:
        """This process."""
        found = cls.of(os.getpid())
        if found is None:
            raise RuntimeError("/proc does not show this process; is /proc mounted?")
        return found

    @classmethod
    def parse(cls, text: str) -> Process | None:
        """The inverse of str(); None where `text` is something else."""
        parts = text.split()
        if len(parts) != 3 or not (parts[0].isdigit() and parts[1].isdigit()):
            return None
        return cls(int(parts[0]), int(parts[1]), parts[2])

    def __str__(self) -> str:
        return f"{self.pid} {self.started} {self.boot}"

    def alive(self) -> bool:
        """True while this very process runs."""
        return Process.of(self.pid) == self


@dataclass(frozen=True)
class Account:
    """The user and group a child runs as, without supplementary groups."""

    uid: int
    gid: int


# What a child of `run` and `launch` sees unless told otherwise: nothing of ours, messages in English.
_PLAIN_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def run(command: Sequence[str], *, account: Account | None = None) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end in the root folder and a plain environment; its output is in the result."""
    return subprocess.run(  # noqa: S603 (fixed programs, no shell)
        command,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
        cwd="/",
        env=_PLAIN_ENVIRONMENT,
        **_as(account),
    )


def launch(
    command: Sequence[str],
    *,
    log: BinaryIO,
    env: Mapping[str, str] = _PLAIN_ENVIRONMENT,
    cwd: Path | str = "/",
    account: Account | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own (Ctrl-C in the terminal passes it by), output to `log`."""
    return subprocess.Popen(  # noqa: S603 (our own command lines, no shell)
        command,
        stdout=log,
        stderr=log,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        cwd=cwd,
        env=env,
        **_as(account),
    )


class _Identity(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


def _as(account: Account | None) -> _Identity:
    return {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}


def named(text: str) -> list[Process]:
    """The processes of that short name."""
    pids = [item.pid for item in psutil.process_iter(["name"]) if item.info["name"] == text]
    return [process for pid in pids if (process := Process.of(pid))]


def working_folder(pid: int) -> Path | None:
    """The process's current folder; None where it is gone, a zombie, or not ours to look at."""
    try:
        return Path(psutil.Process(pid).cwd())
    except psutil.Error:
        return None


def name(pid: int) -> str:
    """The process's short name, `?` where it is gone."""
    try:
        return str(psutil.Process(pid).name())
    except psutil.Error:
        return "?"


def command_line(pid: int) -> list[str]:
    """The words of the process's command line; empty where it is gone or a zombie."""
    try:
        return list(psutil.Process(pid).cmdline())
    except psutil.Error:
        return []


def marked(mark: str) -> list[Process]:
    """The processes started with `mark` ("NAME=value") in their environment, this one excepted.

    A process inherits it from whoever started it, so a random value finds all descendants, also those
    that left the process group or whose parents are gone, and nobody else's.
    """
    variable, _, value = mark.partition("=")
    pids = [
        item.pid
        for item in psutil.process_iter(["environ"])
        if (item.info["environ"] or {}).get(variable) == value and item.pid != os.getpid()
    ]
    return [process for pid in pids if (process := Process.of(pid))]


def send(process: Process, number: int) -> None:
    """Send signal `number` to this very process; nothing happens when it is gone, its pid reused or not."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if process.alive():
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)


def holder_of_port(port: int) -> str:
    """Who listens on TCP `port`, in words: "nginx (pid 123)", or "another process" where it is hidden."""
    for connection in psutil.net_connections("tcp"):
        listens = connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        if listens and connection.pid is not None:
            return f"{name(connection.pid)} (pid {connection.pid})"
    return "another process"


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the command name, which may itself hold blanks and brackets.

    psutil's start time is by the wall clock: it moves when the clock is set.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
