"""Airflow's part of the alerts: what its own tables tell, and sending what is due.

The callbacks run in the DAG processor (in a backfill: in its command), the rest in the tasks' processes.
Nothing here raises into Airflow, and nothing heavy is imported before something has to be told.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, get_args

from include.mltrading.airflow import compat
from include.mltrading.airflow.compat import InstanceFacts, RunFacts
from include.mltrading.airflow.connection import libpq_keywords
from include.mltrading.configuration.deployments import DagId, Deployments, load_deployments
from include.mltrading.configuration.settings import Settings
from include.mltrading.configuration.symbols import batches, read_symbols_file
from include.mltrading.errors import DatabaseRefusedError, DatabaseUnreachableError, MLTradingError

if TYPE_CHECKING:
    from include.mltrading.alerts.store import Alert
    from include.mltrading.store.connection import Connection

LOAD: DagId = "complete-data-and-features-ondemand"
COLLECTION: DagId = "yahoo-production-data-collection"
FEATURES: DagId = "feature-engineering-production-subprocess"
GATE = "wait_for_bars"
STEPS = {LOAD: ["collect_symbol", "compute_features"], COLLECTION: ["collect_symbol"],
         FEATURES: ["compute_features"]}  # fmt: skip
# These count what others did; their own failure says nothing new.
_COUNTING = ("publish_", "verify_")
_CONFIRM = timedelta(seconds=90)
# What must be remembered while the market database cannot be asked: an Airflow variable.
_NOTE = "mltrading_database_alert"
_CLAIM_SECONDS = 60
# A callback has 50 s for everything.
_MOST_SECONDS = 20.0
# A mail server that hangs is left alone for so many times the time that it took.
_PATIENCE = 10

log = logging.getLogger(__name__)


def dag_callbacks() -> dict[str, Any]:
    """Arguments of DAG() with which people are told."""
    return {
        "on_success_callback": on_success,
        "on_failure_callback": on_failure,
        **compat.sla_callback(on_sla_miss),
    }


# When a run is over -------------------------------------------------------------------------------------


def on_success(context: Any) -> None:
    """A run is over, and green (or skipped)."""
    _run_is_over(context, failed=False)


def on_failure(context: Any) -> None:
    """A run is over, and red; Airflow may say so more than once."""
    _run_is_over(context, failed=True)


def nothing_was_started(context: Any) -> None:
    """A task finds nothing to count. Where an earlier one has failed, so will the run, and that is told now.

    Airflow 2.11 loses the callback of such a run whenever the last row that its database gives is of a mapped
    task that was never expanded: DAG.fetch_callback asks that one for its context, which has no length.
    """
    with _never_in_the_way():
        run = compat.run_facts(context["dag_run"])
        if compat.instances(run.dag_id, run.run_id, state="failed"):
            on_failure(context)


def _run_is_over(context: Any, *, failed: bool) -> None:
    with _never_in_the_way():
        run = compat.run_facts(context["dag_run"])
        deployments = _deployments()
        with _market_database(run, deployments) as connection:
            from include.mltrading.alerts.checks import freshness
            from include.mltrading.alerts.store import resolve

            resolve(connection, [_late_key(run), f"tick_not_started:{run.dag_id}"])
            symbols = read_symbols_file(Settings.from_environment().symbols_file)
            asked = list(context["params"].get("symbols") or symbols)
            with _never_in_the_way():
                _tell_outcome(connection, deployments, run, context, asked, failed=failed)
            with _never_in_the_way():
                freshness(connection, deployments, symbols, datetime.now(UTC))
            sent = deliver(connection, deployments)
            log.info("%s %s is over; %d mails sent", run.dag_id, run.run_id, sent)


def _tell_outcome(
    connection: Connection, deployments: Deployments, run: RunFacts, context: Any, asked: list[str],
    *, failed: bool,
) -> None:  # fmt: skip
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
    if failed:
        alert = _failure(deployments, run, context, served, reasons)
        told_otherwise = _is_told_otherwise(connection, run, served)
        open_alert(connection, alert, deployments.alerts, told=told_otherwise)
        # The newest mail tells all; nobody needs to hear that the one before is over. Where a quiet period
        # holds it back, the one before is what people know of, and what they will hear the end of.
        if any(it.key == alert.key and it.is_told for it in open_alerts(connection, ["run_failed"])):
            resolve(connection, [it.key for it in told if it.key != alert.key], quietly=True)
    elif tried:
        resolve(connection, [it.key for it in told if set(it.details.symbols) <= served])


def _is_told_otherwise(connection: Connection, run: RunFacts, served: set[str]) -> bool:
    """Whether the mail about the cause has told that the run fails: one fault, one mail."""
    from include.mltrading.alerts.store import database_was_blamed, open_alerts

    if served:
        return False
    told = open_alerts(connection)
    red = {it.task_id for it in compat.instances(run.dag_id, run.run_id, state="failed")}
    return (
        database_was_blamed(connection, run.run_id)
        or any(
            it.kind in ("yahoo_unreachable", "sources_mixed", "migration_edited") and it.run_id == run.run_id
            for it in told
        )
        or (red == {GATE} and any(it.dag_id == COLLECTION for it in told))
    )


def _failure(
    deployments: Deployments, run: RunFacts, context: Any, served: set[str], reasons: dict[str, str]
) -> Alert:
    """The digest of a failed run."""
    from include.mltrading.airflow.params import find_problem
    from include.mltrading.alerts.render import in_new_york
    from include.mltrading.alerts.store import Alert, Details, Item

    red = compat.instances(run.dag_id, run.run_id, state="failed")
    dag_run = context["dag_run"]
    problem = find_problem(context["dag"], dag_run.conf or {}, dag_run.logical_date)
    name = deployments.deployments[run.dag_id].display_name  # type: ignore[index]
    facts = [
        ("Pipeline", name), (_tick_name(run), in_new_york(run.tick)), ("Run", run.run_id),
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
    labels = {it.label: it.log_url for it in red if it.label}
    links = {symbol: url for label, url in labels.items() for symbol in label.split(", ")}
    items = [Item(f"{symbol}: {why}", links.get(symbol)) for symbol, why in sorted(reasons.items())]
    if reasons:
        what = f"{len(reasons)} of {total} symbols failed"
        others = [it for it in red if it.map_index < 0 and not it.task_id.startswith(_COUNTING)]
    else:
        others = [it for it in red if it.map_index < 0] or red
        what = f"failed in {', '.join(sorted({it.task_id for it in others})) or 'no task'}"
    items = [Item(f"task {it.task_id}: its log tells why", it.log_url) for it in others] + items
    subject = f"{name}, {_spoken(run)}: {what}"
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


# While a run goes on ------------------------------------------------------------------------------------


def on_sla_miss(dag: Any, tasks: str, blocking: str, misses: Sequence[Any], instances: Sequence[Any]) -> None:
    """Airflow 2's own list of missed SLAs has grown. Its dates are ticks; its blocking tasks are not true."""
    with _never_in_the_way():
        deployments = _deployments()
        now = datetime.now(UTC)
        late = find_late(deployments, now)
        ticks = {miss.execution_date for miss in misses}
        runs = compat.runs_of_ticks(dag.dag_id, ticks)
        missed = sorted(ticks - set(runs))
        behind = [
            run
            for run in runs.values()
            if run.state in ("queued", "running") and run.queued_at - run.tick >= deployments.sla(dag.dag_id)
        ]
        with _market_database(None, deployments) as connection:
            from include.mltrading.alerts.store import open_alert, open_alerts

            for alert in late:
                open_alert(connection, alert, deployments.alerts)
            # Both have told it already: a late run holds up the next ticks, and one that did not start is
            # late when it does.
            told = [it.kind for it in open_alerts(connection) if it.dag_id == dag.dag_id]
            held_up = "run_late" in told
            behind = [] if "tick_not_started" in told else behind
            if (missed or behind) and not held_up:
                open_alert(connection, _missed(deployments, dag.dag_id, missed, behind), deployments.alerts)
            sent = deliver(connection, deployments)
            log.info("%s: %d missed SLAs, %d mails sent", dag.dag_id, len(misses), sent)


def look_around(known: set[str]) -> None:
    """Tell of runs that are late and of ticks that did not start. known: keys told by this process."""
    with _never_in_the_way():
        deployments = _deployments()
        found = find_late(deployments, datetime.now(UTC))
        found += _not_started(deployments, datetime.now(UTC))
        if compat.has_note(_NOTE) or not {alert.key for alert in found} <= known:
            with _market_database(None, deployments) as connection:
                from include.mltrading.alerts.store import open_alert

                for alert in found:
                    confirm = _CONFIRM if alert.kind == "tick_not_started" else timedelta()
                    open_alert(connection, alert, deployments.alerts, confirm=confirm)
                deliver(connection, deployments)
        known |= {alert.key for alert in found if alert.kind == "run_late"}


def due_at(run: RunFacts, deployments: Deployments) -> datetime:
    """The instant from which on the run is late: so long after its tick.

    After it was made, where people made it, or where it was made long after its tick (pause, outage).
    """
    limit = deployments.sla(run.dag_id)  # type: ignore[arg-type]
    on_time = run.run_type == "scheduled" and run.queued_at - run.tick < limit
    return (run.tick if on_time else run.queued_at) + limit


def find_late(deployments: Deployments, now: datetime) -> list[Alert]:
    """The runs that take too long, whoever started them (but for backfills, at which somebody looks)."""
    active = [run for run in compat.active_runs(get_args(DagId)) if run.run_type != "backfill"]
    late = [run for run in active if now > due_at(run, deployments)]
    if not late:
        return []
    waiting = [
        run
        for run in active
        if run.dag_id == FEATURES
        and any(it.task_id == GATE for it in compat.instances(run.dag_id, run.run_id))
    ]
    collecting = any(run.dag_id == COLLECTION for run in active)
    # While the gate waits, the collection is what is late, and its mail names who waits.
    return [
        _late(run, deployments, now, waiting if run.dag_id == COLLECTION else [])
        for run in late
        if not (run in waiting and collecting)
    ]


def _late_key(run: RunFacts) -> str:
    return f"run_late:{run.dag_id}:{run.run_id}"


def _late(run: RunFacts, deployments: Deployments, now: datetime, waiting: list[RunFacts]) -> Alert:
    from include.mltrading.alerts.render import in_new_york
    from include.mltrading.alerts.store import Alert, Details, Item

    deployment = deployments.deployments[run.dag_id]  # type: ignore[index]
    limit = deployments.sla(run.dag_id)  # type: ignore[arg-type]
    began = due_at(run, deployments) - limit
    symbols = _symbols_by_index(run)
    unfinished = compat.instances(run.dag_id, run.run_id)
    # What has not been scheduled waits for the others, unless nothing else is left.
    blocking = [it for it in unfinished if it.state != "not started"] or unfinished
    # A mail shows the first of many: what works, or tries again, before what only waits for its turn.
    blocking.sort(key=lambda it: it.started_at is None)
    items = [Item(_said(it, symbols), it.log_url) for it in blocking]
    also = deployments.deployments[FEATURES].display_name
    details = Details(
        "Look at what blocks it. A hung task can be cleared in the grid: it is repeated, nothing is lost.",
        [
            ("Pipeline", deployment.display_name),
            ("Scheduled" if run.run_type == "scheduled" else "Triggered", in_new_york(run.tick)),
            ("Elapsed", _minutes(now - began)),
            ("Expected", f"{_minutes(limit / deployments.alerts.sla_factor)}, late after {_minutes(limit)}"),
            *[("Waits for it", f"{also}, {_spoken(other)}") for other in waiting],
            ("Run", run.run_id),
            ("Run in Airflow", run.grid_url),
        ],
        "Blocked by", items,
    )  # fmt: skip
    subject = f"{deployment.display_name}, {_spoken(run)}: late, {_minutes(now - began)} so far"
    return Alert(_late_key(run), "run_late", subject, details, run.dag_id, run.run_id)


def _said(instance: InstanceFacts, symbols: list[list[str]]) -> str:
    from include.mltrading.alerts.render import clock_in_new_york

    name = instance.task_id
    if instance.map_index >= 0:
        known = symbols[instance.map_index] if instance.map_index < len(symbols) else []
        name = f"{instance.label or ', '.join(known) or instance.map_index} ({name})"
    since = ""
    if instance.started_at is not None:
        since = f" since {clock_in_new_york(instance.started_at)}"
    return f"{name}: {instance.state}{since}"


def _symbols_by_index(run: RunFacts) -> list[list[str]]:
    """The symbols of each mapped instance, also of those that have not started."""
    if run.dag_id == LOAD:
        return compat.result_of(run.dag_id, run.run_id, "plan_symbols") or []
    settings = Settings.from_environment()
    return batches(read_symbols_file(settings.symbols_file), settings.symbols_per_task)


def _missed(deployments: Deployments, dag_id: DagId, missed: list[datetime], behind: list[RunFacts]) -> Alert:
    from include.mltrading.alerts.render import in_new_york
    from include.mltrading.alerts.store import Alert, Details

    name = deployments.deployments[dag_id].display_name
    facts = [("Pipeline", name)]
    if missed:
        span = in_new_york(missed[0])
        span += f" to {in_new_york(missed[-1])}" if len(missed) > 1 else ""
        facts.append(("Did not run", f"{len(missed)} {'tick' if len(missed) == 1 else 'ticks'}: {span}"))
    facts += [("Started late", f"{_spoken(run)}, at {in_new_york(run.queued_at)}") for run in behind]
    details = Details(
        "Nothing, if the DAG was paused or Airflow was down on purpose: the next run closes the gap.", facts
    )
    what = f"{len(missed)} ticks did not run" if len(missed) != 1 else "one tick did not run"
    newest = max([*missed, *(run.tick for run in behind)])
    return Alert(
        f"ticks_missed:{dag_id}:{newest.isoformat()}", "ticks_missed",
        f"{name}: {what if missed else 'a tick started late'}", details, dag_id,
    )  # fmt: skip


def _not_started(deployments: Deployments, now: datetime) -> list[Alert]:
    from include.mltrading.alerts.render import in_new_york
    from include.mltrading.alerts.store import Alert, Details

    alerts = []
    for dag_id, tick in compat.overdue_ticks(get_args(DagId)):
        limit = deployments.sla(dag_id)  # type: ignore[arg-type]
        if now <= tick + limit:
            continue
        name = deployments.deployments[dag_id].display_name  # type: ignore[index]
        details = Details(
            "Look for import errors on top of Airflow's DAG list, and at the scheduler's log.",
            [("Pipeline", name), ("Scheduled", in_new_york(tick)), ("Elapsed", _minutes(now - tick)),
             ("Expected", f"within {_minutes(limit)}")],
        )  # fmt: skip
        subject = f"{name}, tick {in_new_york(tick)}: did not start"
        alerts.append(Alert(f"tick_not_started:{dag_id}", "tick_not_started", subject, details, dag_id))
    return alerts


# When the market database itself is out of reach --------------------------------------------------------


def database_failed(run: RunFacts | None, text: str, *, refused: bool, deployments: Deployments) -> None:
    """Mail that the market database cannot be reached, once per run and quiet period."""
    from include.mltrading.alerts.render import compose
    from include.mltrading.alerts.store import Due
    from include.mltrading.configuration.alert_kinds import MANNERS, Kind

    kind: Kind = "database_refused" if refused else "database_unreachable"
    now = datetime.now(UTC)
    with compat.locked_note(_NOTE) as note:
        state = json.loads(note.text or "{}")
        state.setdefault("since", now.isoformat())
        runs = state.setdefault("runs", [])
        known = run is None or run.run_id in runs
        if run is not None and not known:
            runs.append(run.run_id)
        # A login that is refused is news also while people know that the server was away.
        sent_at = _instant(state.get("told", {}).get(kind))
        claimed = _instant(state.get("claimed_at"))
        quiet = sent_at is not None and (known or now < sent_at + deployments.alerts.quiet(kind))
        mine = not quiet and (claimed is None or now > claimed + timedelta(seconds=_CLAIM_SECONDS))
        if mine:
            state["claimed_at"] = now.isoformat()
        state |= {"kind": kind, "text": text}
        note.text = json.dumps(state)
        since = datetime.fromisoformat(state["since"])
    if not mine:
        return
    alert = _database_alert(kind, text, runs)
    due = Due(
        alert.details, 0, kind, MANNERS[kind].severity, alert.subject, since, None, True, sent_at
    )  # fmt: skip
    began = time.monotonic()
    sent = _send_one(compose(due, deployments.alerts.addressees, ""))
    with compat.locked_note(_NOTE) as note:
        state = json.loads(note.text or "{}")
        if sent or not _hung(began):
            state.pop("claimed_at", None)
        if sent:
            state.setdefault("told", {})[kind] = datetime.now(UTC).isoformat()
        note.text = json.dumps(state)


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _database_alert(kind: Any, text: str, runs: list[str]) -> Alert:
    from include.mltrading.alerts.store import Alert, Details

    if kind == "database_refused":
        subject = "the market database refuses the login"
        next_step = "Correct the connection mltrading_db; find out who changed the password or the role."
    else:
        subject = "the market database cannot be reached"
        next_step = (
            "Start the server, or correct the connection mltrading_db. Runs try again by themselves, and the "
            "next one closes the gap."
        )
    facts = [("Answer", text), ("Runs so far", ", ".join(runs) or "none")]
    details = Details(next_step, facts, runs=runs)
    return Alert(kind, kind, subject, details)


def _database_is_back(connection: Connection) -> None:
    from include.mltrading.alerts.store import record_past

    if not compat.has_note(_NOTE):
        return
    with compat.locked_note(_NOTE) as note:
        state, note.text = json.loads(note.text or "{}"), ""
    if state:
        sent_at = _instant(max(state.get("told", {}).values(), default=None))
        since = datetime.fromisoformat(state["since"])
        record_past(connection, _database_alert(state["kind"], state["text"], state["runs"]), since, sent_at)


@contextmanager
def _market_database(run: RunFacts | None, deployments: Deployments) -> Iterator[Connection]:
    """A connection to the market database; when there is none, that is told, and the block is left."""
    from psycopg.conninfo import make_conninfo

    from include.mltrading.store.connection import connect

    try:
        connection = connect(Settings(database_url=make_conninfo(**libpq_keywords())))
    except (DatabaseUnreachableError, DatabaseRefusedError) as error:
        refused = isinstance(error, DatabaseRefusedError)
        database_failed(run, str(error), refused=refused, deployments=deployments)
        raise
    with connection:
        _database_is_back(connection)
        yield connection


def task_failed(context: Any, *, text: str, database: bool, refused: bool) -> None:
    """A try of a task has failed: tell at once what its process could not tell, and send what it recorded."""
    with _never_in_the_way():
        deployments = _deployments()
        run = compat.run_facts(context["dag_run"])
        if database:
            database_failed(run, text, refused=refused, deployments=deployments)
            return
        with _market_database(run, deployments) as connection:
            deliver(connection, deployments)


# Sending ------------------------------------------------------------------------------------------------


def deliver(connection: Connection, deployments: Deployments) -> int:
    """Send every mail that is due; the number sent. What cannot be sent stays due for the next run."""
    from include.mltrading.airflow.mail import MailRefusedError, MailServerError, mail_server
    from include.mltrading.alerts.render import compose
    from include.mltrading.alerts.store import claim_mail, mail_not_sent, mail_sent

    due, sent = claim_mail(connection), 0
    if due is None:
        return 0
    began, pause = time.monotonic(), 0.0
    try:
        with mail_server() as send:
            while due is not None and time.monotonic() < began + _MOST_SECONDS:
                try:
                    send(compose(due, deployments.alerts.addressees, ""))
                except MailRefusedError as error:
                    log.warning("%s", error)  # its claim lapses in two minutes; the others go on
                else:
                    mail_sent(connection, due)
                    sent += 1
                due = claim_mail(connection)
    except MailServerError as error:
        log.warning("%s; the next run tries again", error)
        if _hung(began):
            pause = _PATIENCE * (time.monotonic() - began)
    if due is not None:
        mail_not_sent(connection, due, pause)
    return sent


def _hung(began: float) -> bool:
    """Whether so much time has passed that a server did not just refuse."""
    return time.monotonic() > began + 1


def _send_one(message: Any) -> bool:
    from include.mltrading.airflow.mail import mail_server
    from include.mltrading.errors import MLTradingError

    try:
        with mail_server() as send:
            send(message)
    except MLTradingError as error:
        log.warning("%s; the next try of a task tells it", error)
        return False
    return True


# Words --------------------------------------------------------------------------------------------------


def _deployments() -> Deployments:
    return load_deployments(Settings.from_environment().deployments_file)


def _spoken(run: RunFacts) -> str:
    """A run as people know it."""
    from include.mltrading.alerts.render import in_new_york

    return f"{_tick_name(run).lower()} {in_new_york(run.tick)}"


def _tick_name(run: RunFacts) -> str:
    return "Triggered" if run.run_type == "manual" else "Tick"


def _minutes(span: timedelta) -> str:
    seconds = span.total_seconds()
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


@contextmanager
def _never_in_the_way() -> Iterator[None]:
    try:
        yield
    except (DatabaseUnreachableError, DatabaseRefusedError) as error:
        log.warning("%s", error)  # told, or to be told, by mail
    except Exception as error:
        from psycopg import Error as PsycopgError  # only now, when something has gone wrong

        from include.mltrading.store.connection import database_errors

        if isinstance(error, PsycopgError):
            error = database_errors(error)
        if isinstance(error, MLTradingError):
            log.warning("an alert could not be looked for or told: %s", error)
        else:
            log.exception("an alert could not be looked for or told")
