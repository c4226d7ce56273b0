"""The state folder of one installation: where it is, its secrets, its ports.

Everything a bare-machine run writes lies below this folder (default `.state/` in the checkout,
`MLTRADING_STATE_DIR` moves it), so that two checkouts never touch each other and `make clean` is one
removal. Nothing in it belongs in git.
"""

from __future__ import annotations

import fcntl
import os
import random
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from include.mltrading.errors import MLTradingError

PROJECT = Path(__file__).resolve().parents[2]


class StandaloneError(MLTradingError):
    """The bare-machine run cannot go on; the text is one line and names the remedy."""


def state_folder() -> Path:
    """The state folder of this installation, absolute; it need not exist yet."""
    return Path(os.environ.get("MLTRADING_STATE_DIR") or PROJECT / ".state").expanduser().absolute()


def make_folder(folder: Path, mode: int) -> Path:
    """Create `folder` (and its parents) with `mode`; one that exists is left as it is."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            return folder
        folder.chmod(mode)  # mkdir's own mode is subject to the umask
    except OSError as error:
        raise StandaloneError(
            f"cannot create {folder} ({error.strerror}): set MLTRADING_STATE_DIR to a folder you may write to"
        ) from error
    return folder


def write_private(path: Path, text: str) -> None:
    """Write `text` to `path` atomically; only the owner can read it."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def secret(path: Path, length: int = 32) -> str:
    """The secret kept in `path`, generated (URL-safe, `length` random bytes) when there is none yet."""
    if path.exists():
        return path.read_text().strip()
    value = secrets.token_urlsafe(length)
    write_private(path, value)
    return value


@contextmanager
def locked(path: Path, timeout: float = 60.0, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock file `path` for the block; released by the kernel however the process ends.

    shared: others may hold it too, if they share. Raises StandaloneError when another process keeps it longer
    than `timeout` seconds.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise StandaloneError(
                        f"another process has held {path} for {timeout:.0f} s: end it and try again"
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock file `path`, alone or shared."""
    try:
        with locked(path, timeout=0):
            return False
    except StandaloneError:
        return True


def port_is_free(port: int) -> bool:
    """True when a server can listen on 127.0.0.1:`port` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of an earlier run that still linger are no obstacle, a listener is.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port(preferred: int | None = None) -> int:
    """A port free on 127.0.0.1: `preferred` if it is, else a random one.

    The range lies below the kernel's ports for outgoing connections (32768 and up by default), which
    could take a stored port away between two runs.
    """
    if preferred is not None and port_is_free(preferred):
        return preferred
    for port in random.sample(range(20_000, 32_000), 200):
        if port_is_free(port):
            return port
    raise StandaloneError("no free TCP port between 20000 and 32000 on 127.0.0.1: end what uses them")
