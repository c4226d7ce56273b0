"""What a real scheduler tells of runs that are late: by mail, and in Airflow's own list.

After test_scheduled_runs.py in the same installation, whose schedules it changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from functools import partial

import pytest
from airflow_lanes import on_2
from alarmed import Alarmed, once_a_year
from mail_catcher import text_of

from include.mltrading.alerts.render import in_new_york
from include.standalone.demo import COLLECTION, FEATURES
from include.standalone.runs import DagRun

pytestmark = [pytest.mark.e2e, on_2]


@dataclass(frozen=True)
class Late:
    """A tick of both DAGs at which no task started for a while, but for the gate.

    mail: of that while; collection: its run in that while; runs: both at their ends; over: the mails then.
    """

    tick: datetime
    mail: EmailMessage
    collection: DagRun
    runs: list[DagRun]
    over: list[EmailMessage]


@pytest.fixture(scope="module")
def late(installation: Alarmed) -> Late:
    there = installation
    there.stack.run("-m", "include.mltrading", "collect", "--sessions", "21")
    there.stack.run("-m", "include.mltrading", "features")
    for dag_id in (COLLECTION, FEATURES):
        there.pause(dag_id)
        # Airflow looks only at what has succeeded before; later runs would count as the last ones.
        there.metadata.execute("DELETE FROM dag_run WHERE dag_id = %s", (dag_id,))
        there.succeeded(dag_id)
    there.catcher.take()
    # Only the scheduler can see that what has no task is late.
    with nothing_starts(there):
        tick = tick_soon(there, COLLECTION, FEATURES, seconds=20)
        [mail] = there.mails(1)
        collection = there.run_of(COLLECTION, tick)
        there.until("Airflow's own list", lambda: tick in there.missed(COLLECTION))
        looked = "SELECT count(*) > 1 FROM task_reschedule WHERE dag_id = %s AND start_date > %s"
        both_late = (FEATURES, tick + timedelta(seconds=20))
        there.until(
            "the gate to wait", lambda: there.metadata.execute(looked, both_late).fetchone() == (True,)
        )
        assert there.catcher.mails == []
        # It will be later still, and then it is not the gate that it waits for.
        there.limit(FEATURES, 900, once_a_year(tick))
    runs = [told(there, dag_id, there.run_of(dag_id, tick).run_id) for dag_id in (COLLECTION, FEATURES)]
    return Late(tick, mail, collection, runs, there.mails(1))


@contextmanager
def nothing_starts(there: Alarmed) -> Iterator[None]:
    """No task starts during the block, but for the gate, whose pool is another."""
    update = "UPDATE slot_pool SET slots = %s WHERE pool = 'default_pool'"
    there.metadata.execute(update, (0,))
    try:
        yield
    finally:
        there.metadata.execute(update, (128,))


def tick_soon(there: Alarmed, *dag_ids: str, seconds: float) -> datetime:
    """Give paused DAGs a single tick a year, which comes soon, and runs that are late after so long.

    None of them runs before or after it by itself. They are unpaused.
    """
    ahead = 20
    while True:
        tick = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=ahead)
        for dag_id in dag_ids:
            there.limit(dag_id, seconds, once_a_year(tick))
        there.until("the new schedules", partial(known, there, dag_ids, tick))
        if datetime.now(UTC) < tick:
            for dag_id in dag_ids:
                there.pause(dag_id, False)
            return tick
        ahead *= 2  # a busy machine


def known(there: Alarmed, dag_ids: Sequence[str], tick: datetime) -> bool:
    """Whether the scheduler knows of the DAGs' next tick."""
    rows = there.metadata.execute(
        "SELECT next_dagrun_create_after FROM dag WHERE dag_id = ANY (%s)", (list(dag_ids),)
    )
    return {row[0] for row in rows} == {tick}


def told(there: Alarmed, dag_id: str, run_id: str) -> DagRun:
    """The run once it is over and its callback has told what there is to tell."""
    run = there.ended(dag_id, run_id)
    logs = there.stack.state / "airflow" / "logs" / "scheduler"
    line = f"{dag_id} {run_id} is over; "

    def called() -> bool:
        files = {file.resolve() for file in logs.rglob("*.py.log")}
        return any(line in file.read_text(errors="replace") for file in files)

    there.until("the callback", called)
    return run


def test_a_scheduled_run_that_overruns_is_in_airflows_own_list_and_in_one_mail(late: Late) -> None:
    assert late.collection.state == "running"
    assert "warning: Yahoo Finance Data Collection, tick " in late.mail["Subject"]
    assert ": late" in late.mail["Subject"]
    text = text_of(late.mail)
    assert f"Scheduled: {in_new_york(late.tick)}" in text
    assert "Expected: 13 s, late after 20 s" in text
    assert f"Run: {late.collection.run_id}" in text
    assert f"/dags/{COLLECTION}/grid?dag_run_id=scheduled" in text
    assert "- check_session: scheduled" in text
    [over] = late.over
    assert over["Subject"].startswith("[MLTrading] over: Yahoo Finance Data Collection, tick ")


def test_a_features_run_that_waits_is_a_line_in_the_mail_of_its_late_collection(
    installation: Alarmed, late: Late
) -> None:
    assert f"Waits for it: Production Feature Engineering, tick {in_new_york(late.tick)}" in text_of(
        late.mail
    )
    assert [run.state for run in late.runs] == ["success", "success"]
    assert installation.catcher.mails == []
