"""The runs of the shown DAGs and what they cost, from the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from include.mltrading.configuration.deployments import DagId, Deployments
from include.mltrading.monitor.figures import (
    Cost,
    Performance,
    Pipeline,
    Run,
    RunState,
    RunTime,
    Step,
    Success,
    Timing,
)
from include.mltrading.store.connection import Connection
from include.mltrading.store.queries import query

SHOWN_RUNS = 30
_MOST_RUNS = 300  # of one DAG, however many a week has seen
DAY, WEEK = timedelta(days=1), timedelta(days=7)


class FinishedRuns:
    """The steps of runs that are over, kept from one look at a database to the next.

    A run that is cleared begins anew with a try of a later date, by which it is known to have changed.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], tuple[datetime, list[Step]]] = {}

    def steps(self, dag_id: str, run_id: str, newest_try: datetime) -> list[Step] | None:
        """The run's steps; None when they have to be counted."""
        began, steps = self._kept.get((dag_id, run_id), (None, None))
        return steps if began == newest_try else None

    def keep(self, runs: dict[tuple[str, str], tuple[datetime, list[Step]]]) -> None:
        """Remember those of the runs that are over, and forget all others."""
        self._kept = {run: found for run, found in runs.items() if not any(step.running for step in found[1])}


def shown_pipelines(deployments: Deployments) -> list[DagId]:
    """The primary deployments, the most important first, as many as the monitor may show."""
    dashboard = deployments.dashboard
    ordered = sorted(
        dashboard.primary_deployments, key=lambda dag_id: deployments.deployments[dag_id].priority
    )
    return ordered[: dashboard.max_visible_deployments]


def recent_runs(
    connection: Connection, deployments: Deployments, now: datetime, finished: FinishedRuns
) -> dict[str, list[Run]]:
    """The runs of each shown DAG, newest first: the last ones, and all of a week."""
    found = connection.execute(
        query("monitor/monitor_newest_runs"),
        {
            "dag_ids": list(shown_pipelines(deployments)),
            "runs": SHOWN_RUNS,
            "since": now - WEEK,
            "most": _MOST_RUNS,
        },
    ).fetchall()
    counted: dict[tuple[str, str], list[Step]] = {}
    uncounted: list[tuple[str, str]] = []
    for dag_id, run_id, _, newest_try in found:
        steps = finished.steps(dag_id, run_id, newest_try)
        if steps is None:
            uncounted.append((dag_id, run_id))
            steps = []
        counted[dag_id, run_id] = steps
    asked = {"dag_ids": [dag_id for dag_id, _ in uncounted], "run_ids": [run_id for _, run_id in uncounted]}
    for dag_id, run_id, *step in connection.execute(query("monitor/monitor_steps"), asked):
        counted[dag_id, run_id].append(Step(*step))
    finished.keep({(row[0], row[1]): (row[3], counted[row[0], row[1]]) for row in found})
    runs: dict[str, list[Run]] = {}
    for dag_id, run_id, tick, _ in found:
        runs.setdefault(dag_id, []).append(_run(run_id, tick, counted[dag_id, run_id]))
    return runs


def _run(run_id: str, tick: datetime, steps: list[Step]) -> Run:
    steps = sorted(steps, key=lambda step: (step.started_at, step.step))
    began = min(step.started_at for step in steps)
    ended = [step.finished_at for step in steps if step.finished_at is not None]
    running = len(ended) < len(steps)
    state: RunState = "running" if running else "failed" if any(step.failed for step in steps) else "ok"
    seconds = None if running else (max(ended) - began).total_seconds()
    return Run(run_id, tick, state, began, seconds, steps)


def pipelines(deployments: Deployments, runs: dict[str, list[Run]], now: datetime) -> list[Pipeline]:
    return [
        Pipeline(
            dag_id,
            deployments.deployments[dag_id].display_name,
            next(iter(runs.get(dag_id, [])), None),
            _success(runs.get(dag_id, []), now - DAY),
            _success(runs.get(dag_id, []), now - WEEK),
            schedule.tick_after(now) if (schedule := deployments.schedule(dag_id)).cron else None,
        )
        for dag_id in shown_pipelines(deployments)
    ]


def _success(runs: Sequence[Run], since: datetime) -> Success:
    over = [run for run in runs if run.started_at >= since and run.state != "running"]
    served = sum(step.served for run in over for step in run.steps)
    symbols = served + sum(step.failed for run in over for step in run.steps)
    good = sum(run.state == "ok" for run in over)
    return Success(len(over), good, symbols, served, served / symbols if symbols else None)


def performance(connection: Connection, deployments: Deployments, runs: dict[str, list[Run]]) -> Performance:
    timings = []
    for dag_id in shown_pipelines(deployments):
        deployment = deployments.deployments[dag_id]
        shown = [RunTime(r.run_id, r.tick, r.state, r.seconds) for r in runs.get(dag_id, [])[:SHOWN_RUNS]]
        timings.append(
            Timing(
                dag_id,
                deployment.display_name,
                deployment.expected_runtime_minutes * 60,
                deployments.sla(dag_id).total_seconds(),
                shown[::-1],
            )
        )
    last = [(dag_id, of_dag[0].run_id) for dag_id, of_dag in runs.items()]
    rows = connection.execute(
        query("monitor/monitor_costs"),
        {"dag_ids": [dag_id for dag_id, _ in last], "run_ids": [run_id for _, run_id in last]},
    )
    return Performance(timings, sorted((Cost(*row) for row in rows), key=lambda cost: -cost.seconds))
