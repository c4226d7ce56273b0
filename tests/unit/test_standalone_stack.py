"""The stack with plain commands: what it starts it ends, and it never ends anything else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from include.standalone import processes
from include.standalone.stack import MARK, Stack, is_running, read_record
from include.standalone.state import PROJECT, StandaloneError

# Ignores SIGTERM, and so does a grandchild that has left its process group.
STUBBORN = [
    "sh",
    "-c",
    "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 61; sleep 62' & sleep 63; sleep 64",
]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stack, "patience", 1.0)


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process nobody of ours started."""
    child = subprocess.Popen(["sleep", "65"])
    yield child
    child.kill()
    child.wait()


def _marked(token: str) -> list[psutil.Process]:
    return processes.marked(f"{MARK}={token}")


def _wait_for(what: str, condition: object, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def _run_in_another_process(state: Path) -> tuple[subprocess.Popen[str], str]:
    """A stack with one stubborn process in a Python of its own; it and its token."""
    program = (
        "from pathlib import Path\n"
        "import sys\n"
        "from include.standalone.stack import Stack, Stopped\n"
        "from include.standalone.state import StandaloneError\n"
        "Stack.patience = 1.0\n"
        "try:\n"
        f"    with Stack(Path({str(state)!r})) as stack:\n"
        f"        stack.start('stubborn', {STUBBORN!r})\n"
        "        print('up', flush=True)\n"
        "        stack.wait()\n"
        "except StandaloneError as error:\n"
        "    sys.exit(error.exit_code)\n"
        "except Stopped as stopped:\n"
        "    sys.exit(stopped.exit_code)\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(130)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    record = read_record(state)
    assert record is not None
    _wait_for("four processes", lambda: len(_marked(record.token)) >= 4)
    return child, record.token


def test_leaving_the_block_ends_every_descendant_and_nothing_else(
    tmp_path: Path, stranger: subprocess.Popen[bytes]
) -> None:
    with Stack(tmp_path) as stack:
        stack.start("stubborn", STUBBORN)
        record = read_record(tmp_path)
        assert record is not None
        _wait_for("four processes", lambda: len(_marked(record.token)) >= 4)

    assert _marked(record.token) == []
    assert stranger.poll() is None


def test_a_deaf_process_that_has_put_off_the_mark_is_ended_too(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(67)"
    with Stack(tmp_path) as stack:
        started = stack.start("deaf", ["env", "-i", sys.executable, "-c", deaf])
        _wait_for("its word", lambda: started.log.read_text() == "deaf\n")

    assert started.child.poll() == -signal.SIGKILL


def test_an_exception_in_the_block_ends_them_too(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Stack(tmp_path) as stack:  # noqa: PT012 (the block is the point)
        child = stack.start("sleeper", ["sleep", "66"]).child
        raise ZeroDivisionError

    assert child.poll() is not None


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_a_signal_ends_everything(tmp_path: Path, number: int, code: int) -> None:
    child, token = _run_in_another_process(tmp_path)

    child.send_signal(number)

    assert child.wait(timeout=10) == code
    assert _marked(token) == []


def test_a_process_that_is_killed_ends_the_whole_stack_with_a_failure(tmp_path: Path) -> None:
    child, token = _run_in_another_process(tmp_path)
    [stubborn] = (Path("/proc") / str(child.pid) / "task" / str(child.pid) / "children").read_text().split()

    os.kill(int(stubborn), signal.SIGKILL)

    assert child.wait(timeout=10) == 1
    assert _marked(token) == []


def test_a_second_start_names_the_running_one(tmp_path: Path) -> None:
    child, token = _run_in_another_process(tmp_path)
    try:
        with (
            pytest.raises(StandaloneError, match=f"already running here as pid {child.pid}:"),
            Stack(tmp_path),
        ):
            pass
        assert len(_marked(token)) >= 4
    finally:
        child.terminate()
        child.wait()


def test_the_next_start_ends_what_a_kill_9_left(tmp_path: Path, stranger: subprocess.Popen[bytes]) -> None:
    child, token = _run_in_another_process(tmp_path)
    child.kill()
    child.wait()
    assert len(_marked(token)) >= 4

    with Stack(tmp_path):
        assert _marked(token) == []

    assert stranger.poll() is None


def test_a_reused_pid_is_not_taken_for_the_running_stack(tmp_path: Path) -> None:
    child, _ = _run_in_another_process(tmp_path)
    child.kill()
    child.wait()
    # The pid in the record now belongs to another process: this one.
    record = tmp_path / "stack.json"
    record.write_text(record.read_text().replace(f'"pid": {child.pid}', f'"pid": {os.getpid()}'))

    with Stack(tmp_path) as stack:
        stack.check()


def test_a_process_that_died_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        stack.start("fragile", ["sh", "-c", "echo first; echo 'the reason' >&2; exit 3"])
        with pytest.raises(StandaloneError, match=r"fragile ended \(exit code 3\)") as caught:
            stack.wait()

    assert str(caught.value).endswith("    first\n    the reason")


def test_a_program_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack, pytest.raises(StandaloneError, match="cannot start ghost"):
        stack.start("ghost", ["/no/such/program"])


def test_exported_variables_reach_the_processes_and_the_record(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        stack.export("MLTRADING_YAHOO_URL", "http://127.0.0.1:1")
        shown = stack.start("shown", ["sh", "-c", 'echo "$MLTRADING_YAHOO_URL"; sleep 60'])
        _wait_for("a line", lambda: shown.log.read_text() == "http://127.0.0.1:1\n")
        record = read_record(tmp_path)
        assert record is not None
        assert record.exported == {"MLTRADING_YAHOO_URL": "http://127.0.0.1:1"}
        assert is_running(tmp_path)

    record = read_record(tmp_path)
    assert record is not None
    assert record.exported == {}
    assert record.pid is None
    assert not is_running(tmp_path)
