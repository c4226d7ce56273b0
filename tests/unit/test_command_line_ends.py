"""How a command ends when its reader has gone, its output has no room, or Ctrl-C is pressed: no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from include.mltrading import __main__ as command_line
from include.mltrading.configuration.settings import PROJECT_ROOT

VALIDATE = (sys.executable, "-m", "include.mltrading", "validate")


def test_a_reader_that_has_gone_is_no_failure() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            VALIDATE, cwd=PROJECT_ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_output_without_room_is_told_in_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            VALIDATE, cwd=PROJECT_ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "error: the output cannot be written (No space left on device)\n"


def test_ctrl_c_ends_a_command_as_a_shell_counts_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(options: object, settings: object) -> int:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError

    monkeypatch.setattr(command_line.upkeep, "validate", interrupted)
    assert command_line.main(["validate"]) == 130
    assert capsys.readouterr() == ("", "")
