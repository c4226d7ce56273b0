"""What the tests need Airflow 2.11's own code for, see commands.py.

A process of its own in the installation's environment, kept for many commands, since importing Airflow and
the DAGs takes seconds.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from commands import answer_commands  # isort: skip - takes the output over, before Airflow prints

from airflow import settings
from airflow.api.common.trigger_dag import trigger_dag
from airflow.cli.cli_config import parsedate
from airflow.dag_processing.processor import DagFileProcessor
from airflow.models import DagBag, DagRun
from airflow.utils import timezone
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, State, TaskInstanceState
from airflow.utils.types import DagRunType

# Loaded here once: each fork of the callbacks and of the looks around would load them anew.
from include.mltrading.airflow import mail  # noqa: F401
from include.mltrading.alerts import freshness, render  # noqa: F401
from include.mltrading.market import calendar

# Seconds that a run may take.
_PATIENCE = 600


def main() -> None:
    """Answer commands until the input ends."""
    bag = DagBag(include_examples=False)
    assert not bag.import_errors, bag.import_errors
    # Forks share what is loaded as long as nobody touches it.
    calendar.preload()
    gc.freeze()
    commands = {
        "plant": plant,
        "clear": clear,
        "occupy": occupy,
        "ticks": ticks,
        "trigger": trigger,
        "begin": begin,
        "over": over,
        "slas": lambda dag: DagFileProcessor.manage_slas(dag.fileloc, dag.dag_id),
        "read": lambda dag: bag.collect_dags(only_if_updated=False),
        "known": lambda dag: bag.sync_to_db(),
    }
    answer_commands(bag.dags.__getitem__, commands)


@cache
def _warm() -> tempfile.TemporaryDirectory[str]:
    """Let the tasks' processes be forks of one that has loaded what they import: a second less for each.

    The folder of its socket, for nobody else, which goes with this process.
    """
    folder = tempfile.TemporaryDirectory()
    here = Path(__file__).parent
    os.environ["MLTRADING_WARM"] = f"{folder.name}/socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.environ["MLTRADING_WARM"])
        listener.listen(100)
        subprocess.Popen(
            [sys.executable, str(here.with_name("forks.py"))],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            stdin=listener,
        )
    sys.executable = str(here / "warm_python")
    return folder


def plant(dag: Any, tick: str) -> str:
    """A queued scheduled run of a past tick, exactly as the scheduler would have created it; its run id."""
    interval = dag.timetable.infer_manual_data_interval(run_after=datetime.fromisoformat(tick))
    assert interval.end == datetime.fromisoformat(tick), f"{tick} is no tick of {dag.dag_id}"
    return str(_create(dag, interval, DagRunState.QUEUED).run_id)


def trigger(dag: Any, run_id: str, conf: dict[str, Any]) -> None:
    """Trigger a run as `airflow dags trigger` does."""
    trigger_dag(dag.dag_id, run_id=run_id, conf=conf)


def clear(dag: Any, run_id: str, from_task: str | None) -> int:
    """Clear a run, or one task of it and all that come after, as the UI's button does; how many instances."""
    (run,) = DagRun.find(dag_id=dag.dag_id, run_id=run_id)
    if from_task is not None:
        dag = dag.partial_subset([from_task], include_upstream=False, include_downstream=True)
    return int(dag.clear(start_date=run.logical_date, end_date=run.logical_date))


def occupy(dag: Any, count: int, since: str | None = None) -> None:
    """Mark the DAG's next ticks as done, so that the scheduler creates no runs of its own meanwhile.

    since: those after this instant too.
    """
    now = timezone.utcnow()
    begin = datetime.fromisoformat(since) if since else now
    # Looked up from some days back, since an interval may begin before a weekend.
    infos = dag.iter_dagrun_infos_between(begin - timedelta(days=5), now + timedelta(days=5))
    after = [info for info in infos if info.data_interval.end > begin]
    coming = [info for info in after if info.data_interval.end > now][:count]
    for info in [info for info in after if info.data_interval.end <= now] + coming:
        if not DagRun.find(dag_id=dag.dag_id, execution_date=info.logical_date):
            _create(dag, info.data_interval, DagRunState.SUCCESS)


def begin(dag: Any, run_id: str) -> int:
    """Take a run to its end without a scheduler, in a process of its own; its id.

    Airflow's own code decides what is next, runs each task in a fork and calls the callback when all is over;
    only pools and priorities, and all waiting for a scheduler or before a retry, are left out.
    """
    _warm()
    pid = _fork()
    if pid:
        return pid
    signal.alarm(_PATIENCE)
    try:
        _drive(dag, run_id)
    except BaseException:
        logging.exception("%s %s was not driven", dag.dag_id, run_id)
        os._exit(1)
    os._exit(0)


def _fork() -> int:
    """os.fork(), whose child leaves its parent's connections alone: two would read each other's replies."""
    pid = os.fork()
    if not pid:
        settings.engine.dispose(close=False)
    return pid


def over(dag: Any, pid: int) -> None:
    """Wait for the end of a run that has begun, its callback included."""
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"a run of {dag.dag_id} was left with {os.waitstatus_to_exitcode(status)}"


def _drive(dag: Any, run_id: str) -> None:
    callback = None
    while True:
        with create_session() as session:
            (run,) = DagRun.find(dag_id=dag.dag_id, run_id=run_id, session=session)
            if run.state == DagRunState.QUEUED:
                run.state, run.start_date = DagRunState.RUNNING, timezone.utcnow()
            run.dag = dag
            ready, callback = run.update_state(session=session, execute_callbacks=False)
            run.schedule_tis(ready, session)
            session.flush()
            keys = [(instance.task_id, instance.map_index) for instance in ready]
            ended = run.state in State.finished_dr_states
        if ended:
            break
        for pid in [_start(dag, run_id, *key) for key in keys]:
            os.waitpid(pid, 0)
        if not keys and not _hasten_retries(dag, run_id):
            time.sleep(0.1)  # until a look is due
    if callback is not None:
        DagFileProcessor.execute_callbacks(SimpleNamespace(dags={dag.dag_id: dag}), [callback], False)


def _hasten_retries(dag: Any, run_id: str) -> bool:
    """Make the retries that a run waits for due now; whether it waits for any."""
    with create_session() as session:
        (run,) = DagRun.find(dag_id=dag.dag_id, run_id=run_id, session=session)
        waiting = run.get_task_instances([TaskInstanceState.UP_FOR_RETRY], session=session)
        for instance in waiting:
            # The wait counts from here, and is a day at most.
            instance.end_date -= timedelta(days=1)
    return bool(waiting)


def _start(dag: Any, run_id: str, task_id: str, map_index: int) -> int:
    pid = _fork()
    if pid:
        return pid
    try:
        (run,) = DagRun.find(dag_id=dag.dag_id, run_id=run_id)
        instance = run.get_task_instance(task_id, map_index=map_index)
        instance.set_state(TaskInstanceState.QUEUED)
        instance.refresh_from_task(dag.get_task(task_id))
        instance.init_run_context()
        instance.run()
    except BaseException:
        logging.exception("%s %s %s", run_id, task_id, map_index)
    finally:
        logging.shutdown()
        os._exit(0)  # the instance's state tells the rest


def ticks(dag: Any, start: str, end: str) -> list[str]:
    """The ticks that `airflow dags backfill -s START -e END` runs."""
    infos = dag.iter_dagrun_infos_between(parsedate(start), parsedate(end))
    return [info.data_interval.end.isoformat() for info in infos]


def _create(dag: Any, interval: Any, state: DagRunState) -> Any:
    return dag.create_dagrun(
        run_id=dag.timetable.generate_run_id(
            run_type=DagRunType.SCHEDULED, logical_date=interval.start, data_interval=interval
        ),
        run_type=DagRunType.SCHEDULED,
        execution_date=interval.start,
        data_interval=interval,
        state=state,
        external_trigger=False,
    )


if __name__ == "__main__":
    main()
