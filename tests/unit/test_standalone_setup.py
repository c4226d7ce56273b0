"""setup.sh: which Python it takes, when it works and when it leaves what is there alone.

`uv` is a small stand-in that makes a bare environment and notes how it was called: a real installation
takes a minute and a package index.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from include.standalone.airflow import MAJOR
from include.standalone.state import PROJECT

UV = """#!/bin/sh
echo "$*" >>"$UV_CALLS"
env | grep '^PYTHONDONTWRITEBYTECODE=' >>"$UV_CALLS"
case $1 in
venv)
    while [ $# -gt 1 ]; do [ "$1" = --python ] && python=$2; shift; done
    real=$(readlink -f "$python")
    mkdir -p "$1/bin"
    echo "home = ${real%/*}" >"$1/pyvenv.cfg"
    ln -sf "$real" "$1/bin/python"
    ;;
pip)
    while [ "$1" != --python ]; do shift; done
    printf '#!%s/%s\\n' "$(pwd -P)" "$2" >"${2%/*}/airflow"
    chmod +x "${2%/*}/airflow"
    [ ! -e "$UV_CALLS.fail" ] || exit 1
    ;;
esac
"""


OF = "" if MAJOR == 2 else "-airflow3"
PINS = {
    "requirements.txt",
    "requirements-airflow3.txt",
    "requirements-dev.txt",
    "constraints.txt",
    "constraints-airflow3.txt",
}


@dataclass
class Checkout:
    """A small copy of the project and a PATH of its own."""

    folder: Path
    programs: Path

    @property
    def venv(self) -> Path:
        return self.folder / (".venv" if MAJOR == 2 else ".venv-airflow3")

    @property
    def calls(self) -> list[str]:
        """How uv was called so far, its question for the version left out."""
        lines = (self.programs / "calls").read_text().splitlines()
        return [line for line in lines if line != "--version"]

    def python(self, name: str, script: str) -> None:
        """Put a program into PATH."""
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def real_python(self, name: str) -> None:
        self.python(name, f'exec {sys.executable} "$@"')

    def setup(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.folder / "include/standalone/setup.sh"), *arguments],
            env={
                "PATH": f"{self.programs}:/usr/bin:/bin",
                "HOME": str(self.folder),
                "UV_CALLS": str(self.programs / "calls"),
                # Or pip is asked, at half a second.
                **dict.fromkeys(("UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS"), "known"),
                # The Airflow that runs on this Python; "": setup.sh chooses.
                "AIRFLOW": str(MAJOR),
                **variables,
            },
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    folder, programs = tmp_path / "checkout", tmp_path / "bin"
    (folder / "include" / "standalone").mkdir(parents=True)
    programs.mkdir()
    for name in ("setup.sh", "uv_settings.sh"):
        shutil.copy(PROJECT / "include/standalone" / name, folder / "include/standalone" / name)
    for name in PINS:
        shutil.copy(PROJECT / name, folder / name)
    made = Checkout(folder, programs)
    made.python("uv", UV.removeprefix("#!/bin/sh\n"))
    (programs / "calls").touch()
    # The machine's own interpreters are out of the way until a test puts one there.
    for name in ("python3.11", "python3.12", "python3.13", "python3.14", "python3"):
        made.python(name, "echo 'pyenv: command not found' >&2; exit 127")
    return made


def _marker(checkout: Checkout) -> Path:
    """A file in the environment that only a rebuild removes."""
    path = checkout.venv / "marker"
    path.touch()
    return path


def test_a_shim_that_fails_is_passed_over(checkout: Checkout) -> None:
    checkout.real_python("python3.12")

    done = checkout.setup()

    assert done.returncode == 0, done.stderr
    assert (checkout.venv / "bin" / "python").exists()


@pytest.mark.parametrize("version", ["3.10", "3.15"])
def test_an_older_or_newer_python_is_one_line_with_two_ways_out(checkout: Checkout, version: str) -> None:
    checkout.python("python3", f"echo '{version} Linux x86_64 /usr/bin/python3'")

    done = checkout.setup()

    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert f"python3 is Python {version}" in line
    assert "package manager" in line
    assert "docker compose up" in line
    assert not checkout.venv.exists()


def test_no_python_at_all_is_the_same_line(checkout: Checkout) -> None:
    done = checkout.setup()

    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "no Python that runs" in line


@pytest.mark.parametrize("machine", ["Linux ppc64le", "Darwin arm64"])
def test_another_platform_is_refused(checkout: Checkout, machine: str) -> None:
    checkout.python("python3.12", f"echo '3.12 {machine} /usr/bin/python3.12'")

    done = checkout.setup()

    assert done.returncode == 1
    assert machine in done.stderr
    assert "docker compose up" in done.stderr


@pytest.mark.parametrize("name", ["python3.12", "python3.13", "python3.14", "python3"])
def test_where_python_is_too_new_for_airflow_2_the_environment_is_airflow_3s(
    checkout: Checkout, name: str
) -> None:
    version = "3.14" if name == "python3" else name.removeprefix("python")
    checkout.python(name, f"case $2 in *platform*) echo '{version} Linux x86_64 {sys.executable}' ;; esac")

    done = checkout.setup(AIRFLOW="")

    assert done.returncode == 0, done.stderr
    three = version != "3.12"
    assert (checkout.folder / ".venv-airflow3").exists() == three
    [install] = [call for call in checkout.calls if call.startswith("pip")]
    assert ("-c constraints-airflow3.txt" in install) == three
    assert ("-r requirements-airflow3.txt" in install) == three


def test_an_airflow_that_is_asked_for_is_what_there_will_be(checkout: Checkout) -> None:
    checkout.python("python3.12", f"case $2 in *platform*) echo '3.12 Linux x86_64 {sys.executable}' ;; esac")
    folders = [checkout.setup("--folder", AIRFLOW=airflow).stdout.strip() for airflow in ("2", "3", "")]
    for name in ("python3.12", "python3"):
        checkout.python(name, "exit 127")
    without = checkout.setup("--folder", AIRFLOW="3").returncode
    assert folders == [".venv", ".venv-airflow3", ".venv"]
    assert without == 1
    assert checkout.calls == []

    done = checkout.setup(AIRFLOW="4")

    assert (done.returncode, done.stderr) == (1, "setup: AIRFLOW=4: give 2 or 3\n")


def test_python_overrides_the_search(checkout: Checkout) -> None:
    done = checkout.setup(PYTHON=sys.executable)

    assert done.returncode == 0, done.stderr


def test_a_second_call_does_nothing(checkout: Checkout) -> None:
    checkout.setup(PYTHON=sys.executable)
    before = checkout.calls

    done = checkout.setup()

    assert (done.returncode, done.stderr) == (0, "")
    assert checkout.calls == before


@pytest.mark.parametrize("name", [f"requirements{OF}.txt", "requirements-dev.txt", f"constraints{OF}.txt"])
def test_changed_pins_are_installed_into_the_environment_there_is(checkout: Checkout, name: str) -> None:
    checkout.setup(PYTHON=sys.executable)
    marker = _marker(checkout)
    with (checkout.folder / name).open("a") as file:
        file.write("# changed\n")

    done = checkout.setup()

    assert done.returncode == 0, done.stderr
    assert len([call for call in checkout.calls if call.startswith("pip")]) == 2
    assert marker.exists()


def test_a_working_environment_is_kept_when_the_search_would_find_another_python(checkout: Checkout) -> None:
    """It may be in use: deleting it would pull the files from under running processes."""
    checkout.setup(PYTHON=sys.executable)
    marker = _marker(checkout)
    (checkout.venv / ".complete").unlink()
    checkout.python(
        "python3.12", "case $2 in *base_prefix*) echo /other ;; *) echo '3.12 Linux x86_64 /other' ;; esac"
    )

    done = checkout.setup()

    assert done.returncode == 0, done.stderr
    assert marker.exists()


def test_an_interrupted_call_is_repaired_by_the_next(checkout: Checkout) -> None:
    fail = checkout.programs / "calls.fail"
    fail.touch()
    first = checkout.setup(PYTHON=sys.executable)
    marker = _marker(checkout)
    fail.unlink()

    second = checkout.setup(PYTHON=sys.executable)

    assert first.returncode == 1
    assert "Run it again" in first.stderr
    assert second.returncode == 0, second.stderr
    assert not marker.exists()
    assert checkout.setup().stderr == ""


@pytest.mark.parametrize("broken", ["bin/python", "bin/airflow"])
def test_a_broken_environment_is_made_anew(checkout: Checkout, broken: str) -> None:
    checkout.setup(PYTHON=sys.executable)
    marker = _marker(checkout)
    (checkout.venv / broken).unlink()

    done = checkout.setup(PYTHON=sys.executable)

    assert done.returncode == 0, done.stderr
    assert not marker.exists()


def test_a_moved_checkout_gets_a_new_environment(checkout: Checkout) -> None:
    checkout.setup(PYTHON=sys.executable)
    marker = _marker(checkout)
    checkout.folder = checkout.folder.rename(checkout.folder.with_name("elsewhere"))

    done = checkout.setup(PYTHON=sys.executable)

    assert done.returncode == 0, done.stderr
    assert not (checkout.venv / marker.name).exists()


def test_a_folder_that_is_no_environment_is_not_deleted(checkout: Checkout) -> None:
    checkout.venv.mkdir()
    precious = checkout.venv / "precious"
    precious.touch()

    done = checkout.setup(PYTHON=sys.executable)

    assert done.returncode == 1
    assert "is no Python environment" in done.stderr
    assert precious.exists()


def test_byte_code_is_compiled_whatever_the_environment_says(checkout: Checkout) -> None:
    checkout.setup(PYTHON=sys.executable, PYTHONDONTWRITEBYTECODE="1")

    [install] = [call for call in checkout.calls if call.startswith("pip")]
    assert "--compile-bytecode" in install
    assert f"-c constraints{OF}.txt" in install
    assert not any(call.startswith("PYTHONDONTWRITEBYTECODE") for call in checkout.calls)


def test_an_index_set_up_for_pip_is_passed_on_to_uv(checkout: Checkout) -> None:
    checkout.python("uv", UV.removeprefix("#!/bin/sh\n") + '\necho "index $UV_DEFAULT_INDEX" >>"$UV_CALLS"\n')

    checkout.setup(PYTHON=sys.executable, PIP_INDEX_URL="http://127.0.0.1:9/simple", UV_DEFAULT_INDEX="")

    assert "index http://127.0.0.1:9/simple" in checkout.calls


def test_what_pips_files_say_is_passed_on_too_and_what_is_set_for_uv_stands(checkout: Checkout) -> None:
    settings = checkout.folder / "pip.conf"
    settings.write_text(
        "[global]\nindex-url = http://127.0.0.1:9/simple\nextra-index-url =\n    http://127.0.0.1:8\n    http://127.0.0.1:7\n"
    )
    said = '\necho "$UV_DEFAULT_INDEX," $UV_INDEX, "$UV_FIND_LINKS" >>"$UV_CALLS"\n'
    checkout.python("uv", UV.removeprefix("#!/bin/sh\n") + said)

    checkout.setup(PYTHON=sys.executable, PIP_CONFIG_FILE=str(settings), UV_DEFAULT_INDEX="", UV_INDEX="")

    assert "http://127.0.0.1:9/simple, http://127.0.0.1:8 http://127.0.0.1:7, known" in checkout.calls


def test_make_lists_every_target_a_user_may_call() -> None:
    said = subprocess.run(
        ["make", "-s", "help"], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout

    for target in (
        "setup",
        "demo",
        "run",
        "shell",
        "test",
        "test-fast",
        "test-exhaustive",
        "lint",
        "bench",
        "clean",
        "constraints",
        "smoke-live",
    ):
        assert f"make {target} " in said


@pytest.mark.parametrize(
    "typed", ["""echo 'one  two' "$HOME" $((1+1)) #x""", 'psql -c "SELECT 1,\n  2"\necho done']
)
def test_make_shell_passes_the_command_on_as_it_was_typed(typed: str) -> None:
    passed = subprocess.run(
        ["make", "-s", "-o", "setup", "shell", f"CMD={typed}", "PYTHON_OF_VENV=printf '%s|'"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert passed.stdout == f"-m|include.standalone|shell|--command|{typed}|"


def _clean(checkout: Checkout) -> subprocess.CompletedProcess[str]:
    script = checkout.folder / "include/standalone/clean.sh"
    shutil.copy(PROJECT / "include/standalone/clean.sh", script)
    return subprocess.run(
        [str(script)], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )


def test_clean_removes_what_runs_have_made_and_nothing_else(checkout: Checkout) -> None:
    checkout.setup(PYTHON=sys.executable)
    (checkout.folder / ".state/airflow").mkdir(parents=True)

    done = _clean(checkout)

    assert done.returncode == 0, done.stderr
    left = {path.name for path in checkout.folder.iterdir()}
    assert left == PINS | {"include"}


def test_clean_refuses_while_a_run_is_up(checkout: Checkout) -> None:
    runner = subprocess.Popen(
        ["sh", "-c", "sleep 67; : python -m include.standalone demo"], start_new_session=True
    )
    state = checkout.folder / ".state"
    state.mkdir()
    (state / "stack.json").write_text(f'{{"pid": {runner.pid}, "token": "x"}}')
    try:
        done = _clean(checkout)
    finally:
        os.killpg(runner.pid, signal.SIGKILL)
        runner.wait()

    assert done.returncode == 1
    assert f"up as pid {runner.pid}" in done.stderr
    assert state.exists()
