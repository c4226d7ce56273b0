"""An installation whose metadata database is prepared once for the whole test run; test files get copies.

Preparing takes half a minute of processor time: Airflow's migrations, its roles, an administrator.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from include.standalone.airflow import METADATA_DATABASE, airflow_home
from include.standalone.postgres import EmbeddedPostgres
from include.standalone.stack import Stack
from include.standalone.state import free_port, locked, make_folder, write_private

_KEPT = ["fernet_key", "secret_key", "admin_password", f"prepared_{METADATA_DATABASE}"]


@contextmanager
def prepared_states(own: Path, common: Path) -> Iterator[Callable[[], Path]]:
    """A function that makes the state folder of a prepared installation; they are removed at the end.

    own: the folder they are made in. common: the one that all processes of the test run share.
    """
    made: list[Path] = []

    def make() -> Path:
        template = _template(common)
        state = own / f"state{len(made)}"
        made.append(state)
        server = EmbeddedPostgres(state, report=lambda line: None)
        make_folder(state, 0o711)
        make_folder(server.folder, 0o711)
        # Where its account reaches them: outside of a folder of root's.
        server.files.settle()
        _copy(template / "data", server.data)
        shutil.copy2(template / "password", server.folder / "password")
        shutil.copytree(template / "airflow", airflow_home(state), dirs_exist_ok=True)
        # Two test processes would both take 8080, neither listening yet.
        write_private(airflow_home(state) / "web_port", str(free_port()))
        return state

    try:
        yield make
    finally:
        for state in made:
            EmbeddedPostgres(state, report=lambda line: None).remove()


def _template(common: Path) -> Path:
    """What a prepared installation consists of, made by the first who asks."""
    template = common / "prepared"
    with locked(common / "prepared.lock", timeout=600):
        if template.exists():
            return template
        fresh = common / "prepared.new"
        shutil.rmtree(fresh, ignore_errors=True)  # left by one that failed
        fresh.mkdir()
        state = common / "preparing"
        server = EmbeddedPostgres(state, report=lambda line: None)
        try:
            with Stack(state, report=lambda line: None) as stack:
                stack.start_database()
                stack.run("-m", "include.mltrading", "migrate")
            _copy(server.data, fresh / "data")
            shutil.copy2(server.folder / "password", fresh / "password")
            (fresh / "airflow").mkdir(mode=0o700)
            for name in _KEPT:
                shutil.copy2(airflow_home(state) / name, fresh / "airflow" / name)
        finally:
            server.remove()
        return fresh.rename(template)


def _copy(data: Path, target: Path) -> None:
    """Copy the data folder of a server that is down, its owner included."""
    shutil.copytree(data, target, symlinks=True)
    owner = data.stat()
    for path in (target, *target.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
