"""One JSON command a line in, one JSON answer a line out: how tests talk to a process that knows Airflow."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

# What Airflow prints, from its import on, must not mix with the answers.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def answer_commands(dag_of: Callable[[str], Any], commands: Mapping[str, Callable[..., Any]]) -> None:
    """Answer `["name", "dag_id", …]` with `commands[name](dag_of(dag_id), …)` until the input ends."""
    for line in sys.stdin:
        name, dag_id, *arguments = json.loads(line)
        try:
            answer = {"answer": commands[name](dag_of(dag_id), *arguments)}
        except Exception as error:  # the test that asked fails, the others go on
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
