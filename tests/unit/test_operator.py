"""The operator: what the isolated process is told, what it never sees, and how its end is read."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, AirflowSkipException
from airflow_lanes import MAJOR, on_2
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from include.mltrading.airflow import alerts, operator
from include.mltrading.airflow import connection as connection_module
from include.mltrading.airflow.operator import MarketOperator
from include.mltrading.cli.task import Task
from include.mltrading.configuration.settings import PROJECT_ROOT

TICK = datetime(2026, 1, 21, 16, tzinfo=UTC)
SECRET = "never-to-be-seen"
CONNECTION = {
    "conn_type": "postgres",
    "host": "db.example",
    "port": 6543,
    "login": "market",
    "password": SECRET,
    "schema": "bars",
    "extra": {"sslmode": "verify-full", "sslrootcert": "/ca.pem", "connect_timeout": "5"},
}


@pytest.fixture(autouse=True)
def connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MLTRADING_DB", json.dumps(CONNECTION))


def context(run_type: str = "scheduled", **params: Any) -> dict[str, Any]:
    run = SimpleNamespace(
        dag_id="dag",
        run_id="run",
        run_type=run_type,
        data_interval_end=TICK,
        logical_date=TICK - timedelta(hours=1),
        get_task_instances=list,
    )
    instance = SimpleNamespace(try_number=2, task_id="collect_symbol", map_index=0)
    return {"dag_run": run, "ti": instance, "task_instance": instance, "params": params}


def task(**arguments: Any) -> MarketOperator:
    return MarketOperator(task_id="collect_symbol", **arguments)


def environment(run: dict[str, Any] | None = None, **arguments: Any) -> dict[str, str]:
    return task(**arguments).get_env(run or context())


def document(run: dict[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(environment(run, **arguments)["MLTRADING_TASK"])
    return content


def ending_with(monkeypatch: pytest.MonkeyPatch, command: str, **arguments: Any) -> MarketOperator:
    """An operator whose process does something else."""
    monkeypatch.setattr(operator, "_COMMAND", command)
    return task(**arguments)


def test_airflows_own_settings_and_secrets_never_reach_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = {
        "AIRFLOW__CORE__FERNET_KEY": "A" * 43 + "=",  # a key must be one, or no connection can be read
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": SECRET,
        "AIRFLOW_CONN_SMTP_DEFAULT": f"smtp://user:{SECRET}@host",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "MLTRADING_DATABASE_URL": f"postgresql://other:{SECRET}@elsewhere/db",
    }
    for name, value in hidden.items():
        monkeypatch.setenv(name, value)
    made = environment()
    assert not set(hidden) & set(made)
    assert [name for name, value in made.items() if SECRET in value] == ["PGPASSWORD"]
    assert not [name for name in made if name.startswith("AIRFLOW") and not name.startswith("AIRFLOW_CTX_")]


def test_what_the_process_needs_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "SSL_CERT_FILE", "TZ", "MLTRADING_YAHOO_URL", "PYTHONWARNINGS"):
        monkeypatch.setenv(name, f"value of {name}")
    made = environment()
    for name in ("HTTPS_PROXY", "SSL_CERT_FILE", "TZ", "MLTRADING_YAHOO_URL", "PYTHONWARNINGS"):
        assert made[name] == f"value of {name}"
    assert made["PATH"] == os.environ["PATH"]
    assert made["PYTHONPATH"] == str(PROJECT_ROOT)


def test_the_connection_travels_as_libpqs_variables_extras_included() -> None:
    made = environment()
    assert {name: value for name, value in made.items() if name.startswith("PG")} == {
        "PGHOST": "db.example",
        "PGPORT": "6543",
        "PGUSER": "market",
        "PGPASSWORD": SECRET,
        "PGDATABASE": "bars",
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": "/ca.pem",
        "PGCONNECT_TIMEOUT": "5",
    }


def connect_with(monkeypatch: pytest.MonkeyPatch, **changed: Any) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MLTRADING_DB", json.dumps(CONNECTION | changed))


def test_an_extra_without_a_variable_of_libpqs_travels_in_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"keepalives": False, "keepalives_idle": 30, "sslpassword": "a &=%+b", "sslsni": True}
    connect_with(monkeypatch, extra={**extra, "application_name": "mine", "hostaddr": "10.0.0.7"})
    made = environment()
    assert conninfo_to_dict(made["MLTRADING_DATABASE_URL"]) == {
        "keepalives": "0",
        "keepalives_idle": "30",
        "sslpassword": "a &=%+b",
    }
    assert (made["PGSSLSNI"], made["PGAPPNAME"], made["PGHOSTADDR"]) == ("1", "mine", "10.0.0.7")


def test_every_option_of_libpq_is_passed_on_or_refused() -> None:
    options = {
        option.keyword.decode(): option.envvar.decode() if option.envvar else None
        for option in Conninfo.get_defaults()
    }
    assert connection_module._VARIABLES.items() <= options.items()
    # The rest is for other clients than ours.
    assert {name for name, variable in options.items() if variable} == connection_module._VARIABLES.keys()
    assert all(options[name] is None for name in connection_module._WITHOUT)


def test_a_field_goes_before_an_extra_which_goes_before_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    connect_with(monkeypatch, host="", extra={"host": "/run/socket", "dbname": "other"})
    made = environment()
    assert (made["PGHOST"], made["PGDATABASE"]) == ("/run/socket", "bars")


@pytest.mark.filterwarnings("ignore:Encountered .*JSON")  # Airflow's word on the same
@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"sslmod": SECRET}, "'sslmod' is no option of libpq that is passed on"),
        ({"iam": True}, "'iam' is no option"),
        ({"keepalives": {SECRET: 1}}, "'keepalives' is neither a text nor a number"),
        ({"application_name": "a\0b"}, "'application_name' is neither"),
        ([SECRET], "its extra is not a JSON object"),
        (f'{{"sslmode": {SECRET}', "its extra is not a JSON object"),
    ],
)
def test_an_extra_that_cannot_be_passed_on_fails_the_task_by_its_name(
    monkeypatch: pytest.MonkeyPatch, extra: Any, words: str
) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(operator, "task_failed", lambda context, **facts: told.append(facts))
    connect_with(monkeypatch, extra=extra)
    with pytest.raises(AirflowFailException, match=words) as failed:
        task().execute(context())
    assert SECRET not in str(failed.value)
    assert told == [{"text": str(failed.value), "database": True, "refused": True}]


def test_nothing_that_is_rendered_holds_a_secret() -> None:
    rendered = {field: getattr(task(symbols=["AAPL"]), field) for field in MarketOperator.template_fields}
    assert SECRET not in repr(rendered)
    assert rendered["env"] is None
    assert rendered["symbols"] == ["AAPL"]


def test_what_a_user_typed_is_data_and_never_part_of_the_command() -> None:
    evil = "'; touch /tmp/owned; '"
    made = task(symbols=[evil])
    assert evil not in str(made.bash_command)
    assert "{" not in str(made.bash_command)
    assert document(context(symbols=[evil]), symbols=[evil])["symbols"] == [evil]


def test_the_process_can_read_what_the_operator_writes() -> None:
    read = Task.from_json(environment(context(data_period="3d"), symbols=["AAPL", "MSFT"])["MLTRADING_TASK"])
    assert (read.step, read.symbols, read.params) == (
        "collect_symbol",
        ["AAPL", "MSFT"],
        {"data_period": "3d"},
    )
    assert (read.run.dag_id, read.run.run_id, read.run.try_number) == ("dag", "run", 2)


@pytest.mark.parametrize(
    ("run_type", "window_end", "manual", "backfill"),
    [
        ("scheduled", TICK, False, False),
        ("backfill", TICK, False, True),
        ("manual", TICK - timedelta(hours=1), True, False),
    ],
)
def test_a_run_works_up_to_its_tick_and_a_manual_one_up_to_its_trigger(
    run_type: str, window_end: datetime, manual: bool, backfill: bool
) -> None:
    read = Task.from_json(environment(context(run_type))["MLTRADING_TASK"])
    assert (read.run.window_end, read.manual, read.run.backfill) == (window_end, manual, backfill)


def test_the_processs_limit_comes_before_airflows() -> None:
    assert environment(execution_timeout=timedelta(minutes=2))["MLTRADING_TASK_SECONDS"] == "105"


def test_a_runs_symbols_param_leaves_the_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert document(context(symbols=["MSFT"]), symbols=["AAPL", "MSFT"])["symbols"] == ["MSFT"]
    assert document(context(symbols=None), symbols=["AAPL", "MSFT"])["symbols"] == ["AAPL", "MSFT"]
    assert document(context(), symbols=[["AAPL"], ["MSFT", "NVDA"]])["symbols"] == ["AAPL", "MSFT", "NVDA"]
    operator = ending_with(monkeypatch, "false", symbols=["AAPL"])
    with pytest.raises(AirflowSkipException, match="not among the symbols"):
        operator.execute(context(symbols=["MSFT"]))


@pytest.mark.parametrize(
    ("command", "exception", "text"),
    [
        ("echo AAPL is down; exit 1", AirflowException, "AAPL is down (exit code 1)"),
        ("echo correct the file; exit 2", AirflowFailException, "correct the file (exit code 2)"),
        ("echo no such symbol; exit 65", AirflowFailException, "no such symbol (exit code 65)"),
        ("echo ask later; exit 75", AirflowException, "ask later (exit code 75)"),
        ("exit 99", AirflowSkipException, "99"),
        ("kill -9 $$", AirflowException, "exit code -9"),
    ],
)
def test_the_processs_last_line_is_the_failures_text(
    monkeypatch: pytest.MonkeyPatch, command: str, exception: type[Exception], text: str
) -> None:
    with pytest.raises(exception) as failed:
        ending_with(monkeypatch, command).execute(context())
    assert text in str(failed.value)
    assert type(failed.value) is exception


def test_the_last_line_of_a_good_process_is_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = ending_with(monkeypatch, """echo log; echo '[["AAPL"]]'""", output_processor=json.loads)
    assert plan.execute(context()) == [["AAPL"]]


@on_2
def test_no_warning_of_airflows_own_stands_in_a_good_tasks_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from airflow.models.baseoperator import ExecutorSafeguard, _sentinel

    called_as_by_airflow = {"MarketOperator__sentinel": _sentinel}
    monkeypatch.setattr(ExecutorSafeguard, "test_mode", False)
    made = ending_with(monkeypatch, "echo done")
    assert made.execute(context(), **called_as_by_airflow) == "done"
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == []


@pytest.mark.parametrize(
    ("states", "skipped"),
    [
        (["skipped", "skipped"], True),
        (["upstream_failed"], True),
        ([None], True),
        ([], True),
        (["failed", "upstream_failed"], False),
        (["success", "skipped"], False),
    ],
)
def test_who_counts_skips_itself_when_nothing_was_started(
    monkeypatch: pytest.MonkeyPatch, states: list[str | None], skipped: bool
) -> None:
    run = context()
    other = SimpleNamespace(task_id="another", state="success")
    counted = [SimpleNamespace(task_id="collect_symbol", state=state) for state in states]
    run["dag_run"].get_task_instances = lambda: [other, *counted]
    if MAJOR == 3:
        names = dict(enumerate(states))
        monkeypatch.setattr("include.mltrading.airflow.airflow3.runs._states", lambda *asked: names)
    told: list[object] = []
    monkeypatch.setattr("include.mltrading.airflow.operator.nothing_was_started", told.append)
    publish = ending_with(monkeypatch, "echo counted", counts="collect_symbol")
    if skipped:
        with pytest.raises(AirflowSkipException, match="nothing to count"):
            publish.execute(run)
    else:
        assert publish.execute(run) == "counted"
    assert told == ([run] if skipped else [])


@pytest.mark.parametrize("failed", [True, False])
def test_a_run_that_fails_before_its_symbols_is_told_by_who_finds_nothing_to_count(
    monkeypatch: pytest.MonkeyPatch, failed: bool
) -> None:
    """A skipped run (a holiday) has no failed task, and is no failure."""
    told: list[object] = []
    monkeypatch.setattr(alerts, "on_failure", told.append)
    monkeypatch.setattr(alerts.compat, "run_facts", lambda dag_run: dag_run)
    monkeypatch.setattr(alerts.compat, "instances", lambda *run, state: [run] if failed else [])
    run = context()
    alerts.nothing_was_started(run)
    assert told == ([run] if failed else [])
