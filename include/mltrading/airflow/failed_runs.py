"""The mail about a failed run, and the end of it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from include.mltrading.airflow.facts import InstanceFacts, RunFacts
from include.mltrading.airflow.late_runs import GATE, symbols_by_index
from include.mltrading.airflow.wording import spoken, tick_name
from include.mltrading.configuration.deployments import COLLECTION, FEATURES, LOAD, Deployments

if TYPE_CHECKING:
    from include.mltrading.alerts.store import Alert
    from include.mltrading.store.connection import Connection

STEPS = {LOAD: ["collect_symbol", "compute_features"], COLLECTION: ["collect_symbol"],
         FEATURES: ["compute_features"]}  # fmt: skip
# These count what others did; their own failure says nothing new.
_COUNTING = ("publish_", "verify_")


def tell_outcome(
    connection: Connection, deployments: Deployments, run: RunFacts, context: Any, asked: list[str],
    red: list[InstanceFacts] | None,
) -> None:  # fmt: skip
    """Tell that the run has failed, or that what had failed is well.

    asked: the run's symbols; red: its failed instances, None of a run that has not failed.
    """
    from include.mltrading.alerts.store import open_alert, open_alerts, resolve
    from include.mltrading.store import ledger

    served, reasons = set(asked), dict[str, str]()
    tried = False
    for step in STEPS[run.dag_id]:  # type: ignore[index]
        results = ledger.latest(connection, run.dag_id, run.run_id, step, asked)
        if not results:
            continue
        tried = True
        for symbol in asked:
            result = results.get(symbol)
            if result is None or result.status != ledger.OK:
                why = "never started" if result is None else f"{result.status}: {result.error or 'no word'}"
                reasons.setdefault(symbol, f"{step}: {why}")
    served = served - set(reasons) if tried else set()
    told = [it for it in open_alerts(connection, ["run_failed"]) if it.dag_id == run.dag_id]
    if red is not None:
        alert = _failure(deployments, run, context, red, served, reasons)
        told_otherwise = _is_told_otherwise(connection, run, red, served)
        open_alert(connection, alert, deployments.alerts, told=told_otherwise)
        # The newest mail tells all; nobody needs to hear that the one before is over. Where a quiet period
        # holds it back, the one before is what people know of, and what they will hear the end of.
        if any(it.key == alert.key and it.is_told for it in open_alerts(connection, ["run_failed"])):
            resolve(connection, [it.key for it in told if it.key != alert.key], quietly=True)
    elif tried:
        resolve(connection, [it.key for it in told if set(it.details.symbols) <= served])


def _is_told_otherwise(
    connection: Connection, run: RunFacts, red: list[InstanceFacts], served: set[str]
) -> bool:
    """Whether the mail about the cause has told that the run fails: one fault, one mail."""
    from include.mltrading.alerts.store import database_was_blamed, open_alerts

    if served:
        return False
    told = open_alerts(connection)
    return (
        database_was_blamed(connection, run.run_id)
        or any(
            it.kind in ("yahoo_unreachable", "sources_mixed", "migration_edited") and it.run_id == run.run_id
            for it in told
        )
        or ({it.task_id for it in red} == {GATE} and any(it.dag_id == COLLECTION for it in told))
    )


def _logs(run: RunFacts, red: list[InstanceFacts]) -> dict[str, str]:
    """Symbol -> the log of the failed instance that worked on it."""
    by_index = dict(enumerate(symbols_by_index(run)))
    return {symbol: it.log_url for it in red for symbol in by_index.get(it.map_index, [])}


def _failure(
    deployments: Deployments,
    run: RunFacts,
    context: Any,
    red: list[InstanceFacts],
    served: set[str],
    reasons: dict[str, str],
) -> Alert:
    """The digest of a failed run."""
    from include.mltrading.airflow.params import find_problem
    from include.mltrading.alerts.render import in_new_york
    from include.mltrading.alerts.store import Alert, Details, Item

    dag_run = context["dag_run"]
    problem = find_problem(context["dag"], dag_run.conf or {}, run.tick)
    name = deployments.deployments[run.dag_id].display_name  # type: ignore[index]
    facts = [
        ("Pipeline", name), (tick_name(run), in_new_york(run.tick)), ("Run", run.run_id),
        ("Run in Airflow", run.grid_url),
    ]  # fmt: skip
    # Who got to the symbols was not refused: the symbols file has changed since.
    if problem is not None and not reasons and not served:
        details = Details(
            "Find out who triggered it with that input; the trigger form explains what is allowed.",
            [*facts, ("Refused", problem)],
        )
        return Alert(
            f"input_refused:{run.dag_id}:{run.run_id}", "input_refused", f"{name}: input refused",
            details, run.dag_id, run.run_id,
        )  # fmt: skip
    total = len(served) + len(reasons)
    links = _logs(run, red)
    items = [Item(f"{symbol}: {why}", links.get(symbol)) for symbol, why in sorted(reasons.items())]
    if reasons:
        what = f"{len(reasons)} of {total} symbols failed"
        others = [it for it in red if it.map_index < 0 and not it.task_id.startswith(_COUNTING)]
    else:
        others = [it for it in red if it.map_index < 0] or red
        what = f"failed in {', '.join(sorted({it.task_id for it in others})) or 'no task'}"
    items = [Item(f"task {it.task_id}: its log tells why", it.log_url) for it in others] + items
    subject = f"{name}, {spoken(run)}: {what}"
    failing = sorted(reasons) + sorted({it.task_id for it in others})
    digest = hashlib.sha256(",".join(failing).encode()).hexdigest()[:12]
    if reasons:
        facts.append(("Symbols served", f"{len(served)} of {total}"))
    details = Details(
        "Open the log of one; clear the failed tasks in the grid when the cause is gone. "
        f"`python -m include.mltrading check --run {run.run_id}` tells the run's story.",
        facts, "Failed", items, sorted(reasons),
    )  # fmt: skip
    # The same failing again in the next run is the same alert, seen again.
    return Alert(f"run_failed:{run.dag_id}:{digest}", "run_failed", subject, details, run.dag_id, run.run_id)
