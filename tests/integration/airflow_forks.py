"""Airflow imported once: each line of JSON in is a call in a fork of this process, each line out its end.

A call is {"module": name, "arguments": [...]} or {"code": text}, with the "environment" to add. Importing
Airflow anew for each takes two seconds of processor time.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import airflow.models
import airflow.models.connection
import airflow.models.variable
import airflow.providers.smtp.hooks.smtp  # noqa: F401

import include.mltrading.airflow.apply_settings  # noqa: F401


def main(folder: Path) -> None:
    """Answer until the input ends. folder: for what the calls print."""
    streams = [folder / "stdout", folder / "stderr"]
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(child(json.loads(line), streams))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps([code, *(path.read_text() for path in streams)]), flush=True)


def child(call: dict[str, Any], streams: list[Path]) -> int:
    """Do the call as a process of its own would; its exit code."""
    for number, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    os.environ.update(call["environment"])
    code = 0
    try:
        if "module" in call:
            code = importlib.import_module(call["module"]).main(call["arguments"])
        else:
            exec(call["code"], {"__name__": "__main__"})  # noqa: S102 - the test's own
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    main(Path(sys.argv[1]))
