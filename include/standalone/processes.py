"""Processes of this machine: running programs as another account, and finding what belongs to us."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import psutil


@dataclass(frozen=True)
class Account:
    """The user and group a program runs as, without supplementary groups."""

    uid: int
    gid: int


def run(
    command: Sequence[str], *, account: Account | None = None, log: BinaryIO | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end in the root folder and a plain environment, its messages in English.

    account: None for this process's own. log: gets the output, which is in the result otherwise.
    """
    return subprocess.run(  # noqa: S603 (fixed programs, no shell)
        command,
        stdin=subprocess.DEVNULL,
        stdout=log or subprocess.PIPE,
        stderr=log or subprocess.PIPE,
        text=True,
        check=False,
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else [],
    )


def marked(mark: str) -> list[psutil.Process]:
    """The processes started with `mark` ("NAME=value") in their environment, this one excepted.

    A process inherits it from whoever started it, so a random value finds all descendants, also those
    that left the process group or whose parents are gone, and nobody else's.
    """
    variable, _, value = mark.partition("=")
    return [
        process
        for process in psutil.process_iter(["environ"])
        if (process.info["environ"] or {}).get(variable) == value and process.pid != os.getpid()
    ]


def holder_of_port(port: int) -> str:
    """Who listens on TCP `port`, in words: "nginx (pid 123)", or "another process" where it is hidden."""
    for connection in psutil.net_connections("tcp"):
        listens = connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        if listens and connection.pid is not None:
            return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "another process"
