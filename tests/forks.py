"""Python programs run in forks of a process in which their imports are loaded: the start costs nothing.

Each line of JSON in is a call {"module" or "code", "arguments", "environment", "cwd"}, each line out how it
ended: [exit code, stdout, stderr]. The environment is all that the call sees.

With a listening socket as its input each connection is a call of `warm_python`, many at a time.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
_SECONDS = 120
# What commands and tasks import, and load before they fork themselves.
PRODUCT = (
    *(
        f"include.mltrading.{name}.*"
        for name in ("market", "features", "store", "pipeline", "alerts", "operations")
    ),
    "include.mltrading.market.calendar:preload",
    "include.mltrading.market.yahoo:preload",
)


class Forks:
    """The process that forks, started at the first call.

    preload: the modules to load, as `package.*` with all in it; of `module:function` the function is called.
    """

    def __init__(self, *preload: str, environment: Mapping[str, str] | None = None) -> None:
        self._command = [sys.executable, __file__, *preload]
        # Forks of a process with BLAS threads would inherit locks held by nobody.
        self._environment = {
            **(environment or os.environ), "PYTHONPATH": str(PROJECT), "OPENBLAS_NUM_THREADS": "1"
        }  # fmt: skip
        self._process: subprocess.Popen[str] | None = None

    def call(
        self, environment: Mapping[str, str], *arguments: str, cwd: Path = PROJECT, **what: str
    ) -> tuple[int, str, str]:
        """Run a module or code; its exit code, standard output and standard error."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                cwd=PROJECT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        call = {**what, "arguments": arguments, "environment": dict(environment), "cwd": str(cwd)}
        self._process.stdin.write(json.dumps(call) + "\n")
        self._process.stdin.flush()
        code, out, err = json.loads(self._process.stdout.readline())
        return code, out, err

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()


def _serve(preload: list[str]) -> None:
    for name in preload:
        name, _, function = name.partition(":")
        package = importlib.import_module(name.removesuffix(".*"))
        if function:
            getattr(package, function)()
        if name.endswith(".*"):
            for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
                if not found.name.endswith("__main__"):
                    importlib.import_module(found.name)
    if stat.S_ISSOCK(os.fstat(0).st_mode):
        _listen(socket.socket(fileno=0))
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            pid = os.fork()
            if pid == 0:
                os._exit(_child(json.loads(line), out.fileno(), err.fileno()))
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        print(json.dumps([code, *texts]), file=answers, flush=True)


def _listen(listener: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listener.accept()
        if os.fork():
            connection.close()
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        text, (out, err), *_ = socket.recv_fds(connection, 1 << 20, 2)
        while more := connection.recv(1 << 20):
            text += more
        pid = os.fork()
        if pid == 0:
            os._exit(_child(json.loads(text), out, err))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        connection.sendall(str(code if code >= 0 else 128 - code).encode())
        os._exit(0)


def _child(call: dict[str, Any], out: int, err: int) -> int:
    """Do the call as a process of its own would; its exit code."""
    signal.alarm(_SECONDS)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.environ.clear()
    os.environ.update(call["environment"])
    os.chdir(call["cwd"])
    code: object = 0
    try:
        if "module" in call:
            sys.argv = [call["module"], *call["arguments"]]
            # What was loaded as a module is now run as a program.
            sys.modules.pop(call["module"], None)
            runpy.run_module(call["module"], run_name="__main__", alter_sys=True)
        else:
            exec(call["code"], {"__name__": "__main__"})  # noqa: S102 - the test's own
    except SystemExit as ended:
        code = ended.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return int(code or 0)  # type: ignore[call-overload]


if __name__ == "__main__":
    _serve(sys.argv[1:] or [*PRODUCT])
