"""The operator of every task: a BashOperator around `python -m include.mltrading task`.

The work runs in a process of its own, with its own limits, and never sees Airflow's settings or secrets.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from inspect import unwrap
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, AirflowSkipException
from airflow.providers.standard.hooks.subprocess import SubprocessHook, SubprocessResult
from airflow.providers.standard.operators.bash import BashOperator

from include.mltrading.airflow.alerts import nothing_was_started, run_will_fail, task_failed
from include.mltrading.airflow.compat import was_attempted, window_end
from include.mltrading.airflow.connection import libpq_variables
from include.mltrading.airflow.facts import run_type
from include.mltrading.airflow.watch import watched
from include.mltrading.configuration.settings import PROJECT_ROOT
from include.mltrading.errors import DatabaseRefusedError, UsageError
from include.mltrading.pipeline.exit_codes import EXIT_DATABASE_REFUSED, EXIT_HOPELESS, EXIT_NO_DATABASE

# setpriv: when the Airflow task process is killed, the work is told to stop too. timeout: the backstop for
# a process that does not react, a little before Airflow's own limit, which sends no second signal. The work
# itself looks after timeout, which may be killed as well; all of this has the shell's process id.
_COMMAND = (
    'MLTRADING_TASK_PARENTS="$$ $MLTRADING_TASK_PROCESS" exec setpriv --pdeathsig TERM '
    'timeout --kill-after=10 "$MLTRADING_TASK_SECONDS" "$MLTRADING_PYTHON" -m include.mltrading task'
)
_SECONDS_BEFORE_AIRFLOW = 15
_EXITS_WITHOUT_RETRY = (UsageError.exit_code, EXIT_HOPELESS, EXIT_DATABASE_REFUSED)

# What the work may see of the worker's environment; everything else, Airflow's secrets first, stays out.
_ALLOWED = {
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
    "http_proxy", "https_proxy", "no_proxy", "all_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
}  # fmt: skip
_ALLOWED_PREFIXES = ("PYTHON", "MLTRADING_", "OPENBLAS_")
# The connection decides where the work writes to, not a variable of the worker; and no work sends mail.
_REFUSED = {"MLTRADING_DATABASE_URL", "MLTRADING_SMTP_URL", "MLTRADING_TASK"}


class MarketOperator(BashOperator):
    """Does one step of a run in an isolated process.

    symbols: the symbols of this (mapped) instance; a run whose `symbols` param names some works on those
    only, and skips an instance that has none of them. counts: the task whose outcomes this one counts; the
    task skips itself when nothing of that one was ever started.

    Exit codes of the process: 0 success, 99 skipped, 2, 65 and 77 failed without a retry (it could not help),
    anything else failed. What it prints is the task's log; its last line is the failure's text.
    """

    template_fields: Sequence[str] = (*BashOperator.template_fields, "symbols")

    def __init__(
        self,
        *,
        symbols: Sequence[str] | Sequence[Sequence[str]] = (),
        counts: str | None = None,
        execution_timeout: timedelta = timedelta(minutes=10),
        **kwargs: Any,
    ) -> None:
        super().__init__(bash_command=_COMMAND, execution_timeout=execution_timeout, **kwargs)
        self.symbols = symbols
        self.counts = counts

    @cached_property
    def subprocess_hook(self) -> SubprocessHook:
        """The hook, which remembers how the process ended."""
        return _RememberingHook()

    def execute(self, context: Any) -> Any:
        """Run the process. Raises AirflowSkipException, AirflowFailException or AirflowException."""
        if self.counts is not None and not was_attempted(context, self.counts):
            nothing_was_started(context)
            raise AirflowSkipException(f"nothing to count: no instance of {self.counts} was started")
        if self.symbols and not self._chosen(context):
            raise AirflowSkipException("not among the symbols of this run")
        try:
            with watched(context):
                # Without Airflow's guard, which takes the call for one from outside and warns in each log.
                return unwrap(BashOperator.execute)(self, context)
        except AirflowSkipException:
            raise
        except DatabaseRefusedError as error:  # the connection itself is wrong: no process was started
            task_failed(context, text=str(error), database=True, refused=True)
            raise AirflowFailException(str(error)) from None
        except AirflowException:
            ended = getattr(self.subprocess_hook, "ended", None)
            if ended is None:
                raise
            text = f"{ended.output or 'no output'} (exit code {ended.exit_code})"
            task_failed(
                context,
                text=ended.output,
                database=ended.exit_code in (EXIT_NO_DATABASE, EXIT_DATABASE_REFUSED),
                refused=ended.exit_code == EXIT_DATABASE_REFUSED,
            )
            hopeless = ended.exit_code in _EXITS_WITHOUT_RETRY
            if context["ti"].map_index < 0 and (hopeless or not _will_be_tried_again(context["ti"])):
                run_will_fail(context)
            if hopeless:
                raise AirflowFailException(text) from None
            raise AirflowException(text) from None

    def get_env(self, context: Any) -> dict[str, str]:
        """The whole environment of the process, made at execution: nothing of it is rendered or stored."""
        context_variables = {
            name: value for name, value in super().get_env(context).items() if name.startswith("AIRFLOW_CTX_")
        }
        dag_run = context["dag_run"]
        task = {
            "step": self.task_id,
            "symbols": self._chosen(context),
            "params": dict(context["params"]),
            "run": {
                "dag_id": dag_run.dag_id,
                "run_id": dag_run.run_id,
                "run_type": run_type(dag_run),
                "try_number": context["ti"].try_number,
                "window_end": window_end(dag_run).isoformat(),
            },
        }
        assert self.execution_timeout is not None  # noqa: S101 - set in __init__
        seconds = self.execution_timeout.total_seconds() - _SECONDS_BEFORE_AIRFLOW
        return {
            **_allowed(os.environ),
            **context_variables,
            **libpq_variables(),
            "PYTHONPATH": str(PROJECT_ROOT),
            # Forked children of a process with BLAS threads would inherit locks held by nobody.
            "OPENBLAS_NUM_THREADS": "1",
            "MLTRADING_PYTHON": sys.executable,
            "MLTRADING_TASK_SECONDS": str(int(seconds)),
            "MLTRADING_TASK_PROCESS": str(os.getpid()),
            "MLTRADING_TASK": json.dumps(task),
        }

    def _chosen(self, context: Any) -> list[str]:
        """This instance's symbols, less those that the run's params leave out."""
        flat = [
            symbol for item in self.symbols or () for symbol in ([item] if isinstance(item, str) else item)
        ]
        asked = set(context["params"].get("symbols") or flat)
        return [symbol for symbol in flat if symbol in asked]


def _will_be_tried_again(instance: Any) -> bool:
    return bool(instance.try_number <= instance.max_tries)


def for_each_batch(task_id: str, symbols: Any, *, pool: str, minutes: int) -> Any:
    """The step as a mapped task: an instance, and a process, for each batch of symbols.

    symbols: a list of lists of symbols, or the task whose result is one. minutes: an instance's time limit.
    """
    return MarketOperator.partial(
        task_id=task_id,
        pool=pool,
        # The instance's name in the grid, for which Airflow has 250 characters.
        map_index_template="{{ task.symbols | join(', ') | truncate(250, True, '...', 0) }}",
        execution_timeout=timedelta(minutes=minutes),
        do_xcom_push=False,
    ).expand(symbols=symbols)


class _RememberingHook(SubprocessHook):
    """Keeps the exit code and the last line for the operator's verdict."""

    ended: SubprocessResult | None = None

    def run_command(self, *args: Any, **kwargs: Any) -> SubprocessResult:
        self.ended = super().run_command(*args, **kwargs)
        return self.ended


def _allowed(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if (name in _ALLOWED or name.startswith(_ALLOWED_PREFIXES)) and name not in _REFUSED
    }
