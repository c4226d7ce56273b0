"""The three DAG files as Airflow loads them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from airflow.models import TaskInstance
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.providers.standard.sensors.external_task import ExternalTaskSensor
from airflow_lanes import (
    MappedOperator,
    before_work,
    limit_of,
    load_dags,
    mapped_over,
    on_2,
    on_3,
    schedule_of,
    stored,
)
from jinja2 import Environment

from include.mltrading.airflow import alerts
from include.mltrading.configuration.airflow_settings import load_settings
from include.mltrading.configuration.deployments import load_deployments
from include.mltrading.configuration.settings import PROJECT_ROOT, Settings
from include.mltrading.configuration.symbols import read_symbols_file
from include.mltrading.operations.validate import POOLS

LOAD = "complete-data-and-features-ondemand"
COLLECTION = "yahoo-production-data-collection"
FEATURES = "feature-engineering-production-subprocess"
TASKS = {
    LOAD: [
        "prepare_database", "plan_symbols", "collect_symbol", "publish_bars", "compute_features",
        "publish_features", "verify_pipeline",
    ],
    COLLECTION: ["check_session", "collect_symbol", "publish_bars", "verify_bars"],
    FEATURES: ["wait_for_bars", "compute_features", "publish_features", "verify_features"],
}  # fmt: skip


@pytest.fixture(scope="module")
def dags() -> dict[str, Any]:
    bag = load_dags()
    assert bag.import_errors == {}
    return dict(bag.dags)


@pytest.fixture
def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], None]], Any]:
    """Load the DAGs with a changed deployments file."""

    def load_changed(change: Callable[[Any], None]) -> dict[str, Any]:
        content = yaml.safe_load(Settings().deployments_file.read_text())
        change(content)
        path = tmp_path / "deployments.yaml"
        path.write_text(yaml.safe_dump(content))
        monkeypatch.setenv("MLTRADING_DEPLOYMENTS_FILE", str(path))
        bag = load_dags()
        assert bag.import_errors == {}
        return dict(bag.dags)

    return load_changed


def test_each_file_holds_the_one_dag_of_its_name(dags: dict[str, Any]) -> None:
    assert set(dags) == set(TASKS)
    for dag_id, dag in dags.items():
        assert Path(dag.fileloc).stem == dag_id.replace("-", "_")


def test_the_tasks_are_those_that_people_know(dags: dict[str, Any]) -> None:
    for dag_id, tasks in TASKS.items():
        assert [task.task_id for task in dags[dag_id].topological_sort()] == tasks


def test_every_dag_keeps_the_rules_of_the_house(dags: dict[str, Any]) -> None:
    for dag in dags.values():
        assert dag.catchup is False
        assert dag.max_active_runs == 1
        assert dag.start_date.tzinfo is not None
        # `airflow dags trigger` refuses earlier dates by this one alone.
        assert dag.default_args["start_date"] == dag.start_date
        assert dag.default_args["retries"] >= 2
        assert dag.default_args["retry_exponential_backoff"] is True
        assert dag.owner == "mltrading"
        assert "mltrading" in dag.tags
        assert dag.doc_md


def test_people_are_told_of_every_dag(dags: dict[str, Any]) -> None:
    for dag in dags.values():
        assert dag.on_success_callback == alerts.on_success
        assert dag.on_failure_callback == alerts.on_failure


@on_2
def test_missed_slas_are_told(dags: dict[str, Any]) -> None:
    from include.mltrading.airflow.airflow2.missed_ticks import on_sla_miss

    assert {dag.sla_miss_callback for dag in dags.values()} == {on_sla_miss}


@on_3
def test_a_run_that_takes_too_long_has_a_deadline(dags: dict[str, Any]) -> None:
    deadlines = {dag_id: deadline for dag_id, dag in dags.items() for deadline in dag.deadline}
    assert {dag_id: it.interval for dag_id, it in deadlines.items()} == {
        COLLECTION: timedelta(minutes=12),
        FEATURES: timedelta(minutes=15),
        LOAD: timedelta(minutes=45),
    }
    for deadline in deadlines.values():
        # Airflow's own reference makes it impossible to clear a run that is not over.
        assert deadline.reference.reference_name == "WhenQueued"
        assert deadline.callback.path == "include.mltrading.airflow.airflow3.deadlines.on_deadline"


def test_every_param_explains_itself(dags: dict[str, Any]) -> None:
    names = {dag_id: set(dag.params) for dag_id, dag in dags.items()}
    assert names == {
        LOAD: {"symbols", "period", "start", "end", "recompute_features"},
        COLLECTION: {"symbols", "data_period"},
        FEATURES: {"symbols", "initial_run"},
    }
    for dag in dags.values():
        for name in dag.params:
            param = dag.params.get_param(name)
            assert param.description
            assert param.schema["title"]


NOW = datetime.now(UTC)


def begin(dag: Any, conf: Any, logical_date: datetime = NOW) -> None:
    """What the first task of a run does before its work."""
    [first] = dag.roots
    run = SimpleNamespace(conf=conf, logical_date=logical_date, run_type="manual")
    before_work(first, {"dag": dag, "dag_run": run, "outlet_events": {}})


@pytest.mark.parametrize(
    ("conf", "logical_date", "refusal"),
    [
        ({"symbol": ["AAPL"]}, NOW, "param symbol: no such param; the params are"),
        ({"a\nb": 1}, NOW, r"param a\\nb: no such param"),
        ({"symbols": "AAPL"}, NOW, "param symbols: 'AAPL' is not of type 'array', 'null'"),
        ({"symbols": [["AAPL"]]}, NOW, "param symbols: "),
        ([["symbols", ["AAPL"]]], NOW, "configuration .* give params by name"),
        ({}, datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))), "logical date .* years 1970 to 2099"),
        ({}, NOW + timedelta(days=400), "logical date .* lies in the future"),
        ({}, datetime(2023, 12, 31, 23, tzinfo=UTC), "logical date .* lies before the DAG's start, 2024"),
    ],
)
def test_a_run_that_no_form_makes_is_refused_by_its_first_task_in_one_line(
    dags: dict[str, Any], conf: Any, logical_date: datetime, refusal: str
) -> None:
    for dag in dags.values():
        with pytest.raises(AirflowFailException, match=f"^Invalid .*{refusal}") as caught:
            begin(dag, conf, logical_date)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("conf", "refusal"),
    [
        ({"start": "9999-12-31"}, "param start: .* years 1970 to 2099"),
        ({"end": "0001-01-01"}, "param end: .* years 1970 to 2099"),
        ({"start": "99999-01-01"}, "param start: '99999-01-01' is not a 'date'"),
        ({"start": "2026-01-07", "end": "2026-01-06"}, "param start: .* is not before end"),
        ({"period": None}, "param period: None is not of type 'string'"),
        ({"recompute_features": 1}, "param recompute_features: 1 is not of type 'boolean'"),
    ],
)
def test_a_load_of_no_span_is_refused_by_its_first_task(
    dags: dict[str, Any], conf: dict[str, Any], refusal: str
) -> None:
    with pytest.raises(AirflowFailException, match=f"^Invalid input for {refusal}"):
        begin(dags[LOAD], conf)


def test_a_collection_that_the_vendor_does_not_serve_any_more_is_refused_by_its_first_task(
    dags: dict[str, Any],
) -> None:
    with pytest.raises(AirflowFailException, match="serves hourly bars only from"):
        begin(dags[COLLECTION], {}, NOW - timedelta(days=800))


def test_a_run_with_good_params_or_none_begins(dags: dict[str, Any]) -> None:
    for dag in dags.values():
        for conf in (None, {}, {"symbols": ["AAPL"]}, {"symbols": None}):
            begin(dag, conf)
    begin(dags[LOAD], {"start": "2026-01-05", "end": None}, datetime(2026, 1, 9, tzinfo=UTC))


def test_every_dag_can_be_stored_by_the_scheduler(dags: dict[str, Any]) -> None:
    for dag in dags.values():
        assert stored(dag).dag_id == dag.dag_id


def test_a_task_per_symbol_is_mapped_and_named_after_it(dags: dict[str, Any]) -> None:
    universe = read_symbols_file(Settings().symbols_file)
    for dag_id, task_id in ((COLLECTION, "collect_symbol"), (FEATURES, "compute_features")):
        task = dags[dag_id].get_task(task_id)
        assert isinstance(task, MappedOperator)
        # Known when the file is read: backfill deadlocks on a task that is mapped over a result.
        assert mapped_over(task) == len(universe)
        assert label_of(task, ["AAPL"]) == "AAPL"


def label_of(task: MappedOperator, symbols: list[str]) -> str:
    """The name of a mapped instance in the grid."""
    template = Environment(autoescape=True).from_string(task.partial_kwargs["map_index_template"])
    return template.render(task=SimpleNamespace(symbols=symbols))


def test_the_name_of_a_task_of_many_symbols_fits_into_airflows_column(dags: dict[str, Any]) -> None:
    task = dags[COLLECTION].get_task("collect_symbol")
    room = TaskInstance.__table__.c.rendered_map_index.type.length
    universe = read_symbols_file(Settings().symbols_file)
    assert len(", ".join(universe)) > room
    assert len(label_of(task, universe)) == room
    assert label_of(task, universe[:25]) == ", ".join(universe[:25])


def test_more_symbols_in_a_task_make_fewer_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTRADING_SYMBOLS_PER_TASK", "30")
    task = load_dags().dags[COLLECTION].get_task("collect_symbol")
    assert isinstance(task, MappedOperator)
    assert mapped_over(task) == 4


@pytest.mark.parametrize(("per_task", "instances"), [("1", 1100), ("25", 44)])
def test_more_symbols_than_airflow_maps_over_a_result_are_mapped_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_task: str, instances: int
) -> None:
    symbols = tmp_path / "symbols.txt"
    symbols.write_text("\n".join(f"S{number}" for number in range(1100)) + "\n")
    monkeypatch.setenv("MLTRADING_SYMBOLS_FILE", str(symbols))
    monkeypatch.setenv("MLTRADING_SYMBOLS_PER_TASK", per_task)
    bag = load_dags()
    assert bag.import_errors == {}
    for dag_id, task_id in ((COLLECTION, "collect_symbol"), (FEATURES, "compute_features")):
        read = stored(bag.dags[dag_id])
        assert mapped_over(read.get_task(task_id)) == instances


def test_the_gate_waits_for_a_task_that_exists_and_is_not_mapped(dags: dict[str, Any]) -> None:
    gates = [task for dag in dags.values() for task in dag.tasks if isinstance(task, ExternalTaskSensor)]
    assert len(gates) == 1
    for gate in gates:
        assert gate.external_dag_id is not None
        for task_id in gate.external_task_ids or []:
            assert not isinstance(dags[gate.external_dag_id].get_task(task_id), MappedOperator)


@pytest.mark.parametrize(
    ("tick", "collection_tick"),
    [
        # Monday's first tick, an ordinary one, and the first after the change to summer time.
        (datetime(2026, 1, 26, 14, 5, tzinfo=UTC), datetime(2026, 1, 26, 14, 0, tzinfo=UTC)),
        (datetime(2026, 1, 27, 18, 5, tzinfo=UTC), datetime(2026, 1, 27, 18, 0, tzinfo=UTC)),
        (datetime(2026, 3, 9, 13, 5, tzinfo=UTC), datetime(2026, 3, 9, 13, 0, tzinfo=UTC)),
    ],
)
def test_the_gate_looks_for_the_collection_five_minutes_before(
    dags: dict[str, Any], tick: datetime, collection_tick: datetime
) -> None:
    gate = dags[FEATURES].get_task("wait_for_bars")
    assert gate.collection_schedule.tick_until(tick) == collection_tick
    run = SimpleNamespace(run_type="scheduled", data_interval_end=tick)
    begins = gate.execution_date_fn(tick - timedelta(hours=1), task=gate, dag_run=run)
    assert begins == load_deployments().schedule(COLLECTION).tick_before(collection_tick)


def test_the_gate_follows_the_collections_schedule(changed: Any) -> None:
    dags = changed(lambda c: c["schedule_types"]["market_hours"].update(cron="50 8-15 * * 1-5"))
    schedule = dags[FEATURES].get_task("wait_for_bars").collection_schedule
    assert schedule.tick_until(datetime(2026, 1, 27, 18, 5, tzinfo=UTC)) == datetime(
        2026, 1, 27, 17, 50, tzinfo=UTC
    )


def test_every_pool_of_a_task_stands_in_the_settings_file(dags: dict[str, Any]) -> None:
    known = {pool.pool_name for pool in load_settings().pools}
    used = {task.pool for dag in dags.values() for task in dag.tasks} - {"default_pool"}
    assert used == known == POOLS
    for dag in dags.values():
        for task in dag.tasks:
            expected = {"collect_symbol": "yahoo_api", "compute_features": "market_db"}.get(task.task_id)
            assert expected is None or task.pool == expected


@on_2
def test_the_sla_stands_on_the_tasks_that_publish(dags: dict[str, Any]) -> None:
    slas = {(d, t.task_id): t.sla for d, dag in dags.items() for t in dag.tasks if t.sla is not None}
    assert slas == {
        (COLLECTION, "publish_bars"): timedelta(minutes=12),
        (FEATURES, "publish_features"): timedelta(minutes=15),
        (LOAD, "publish_bars"): timedelta(minutes=45),
        (LOAD, "publish_features"): timedelta(minutes=45),
    }


def test_features_go_before_collection_and_both_before_a_load(dags: dict[str, Any]) -> None:
    weights = {
        dag_id: {getattr(task, "priority_weight_total", task.priority_weight) for task in dag.tasks}
        for dag_id, dag in dags.items()
    }
    assert all(len(values) == 1 for values in weights.values())
    assert max(weights[LOAD]) < max(weights[COLLECTION]) < max(weights[FEATURES])


def test_verify_is_the_leaf_and_is_never_tried_again(dags: dict[str, Any]) -> None:
    for dag in dags.values():
        [leaf] = dag.leaves
        assert leaf.task_id.startswith("verify_")
        assert leaf.retries == 0
        assert leaf.trigger_rule == "all_success"


def test_the_gate_and_the_preparation_stand_directly_before_the_leaf(dags: dict[str, Any]) -> None:
    # A publish task that skips itself would otherwise turn a failed run green.
    assert dags[FEATURES].get_task("verify_features").upstream_task_ids >= {"wait_for_bars"}
    assert dags[COLLECTION].get_task("verify_bars").upstream_task_ids >= {"check_session"}
    assert dags[LOAD].get_task("verify_pipeline").upstream_task_ids >= {
        "prepare_database", "plan_symbols", "publish_bars",
    }  # fmt: skip


def deployment(content: Any, dag_id: str = COLLECTION) -> Any:
    return content["deployments"][dag_id]


@pytest.mark.parametrize(
    ("change", "read", "expected"),
    [
        (lambda c: deployment(c).update(display_name="Bars"), lambda d: d.dag_display_name, "Bars"),
        (
            lambda c: deployment(c).update(category="hourly"),
            lambda d: sorted(d.tags),
            ["hourly", "market_hours", "mltrading"],
        ),
        (
            lambda c: c["pipeline"].update(tags=["equities", "us"]),
            lambda d: sorted(d.tags),
            ["data-collection", "equities", "market_hours", "us"],
        ),
        (
            lambda c: deployment(c).update(expected_runtime_minutes=20),
            limit_of,
            timedelta(minutes=30),
        ),
        (
            lambda c: c["alerts"].update(sla_factor=2),
            limit_of,
            timedelta(minutes=16),
        ),
        (
            lambda c: c["schedule_types"]["market_hours"].update(cron="30 10 * * 1-5"),
            lambda d: schedule_of(d)[0],
            "30 10 * * 1-5",
        ),
        (
            lambda c: c["schedule_types"]["market_hours"].update(timezone="Europe/Berlin"),
            lambda d: schedule_of(d)[1],
            "Europe/Berlin",
        ),
        (
            lambda c: c["schedule_types"]["market_hours"].update(description="Whenever"),
            lambda d: d.description,
            "Whenever",
        ),
        (
            lambda c: deployment(c).update(schedule_type="market_hours_offset"),
            lambda d: schedule_of(d)[0],
            "5 9-16 * * 1-5",
        ),
        (lambda c: deployment(c).update(priority=9), lambda d: d.tasks[0].priority_weight, 191),
        (lambda c: c["pipeline"].update(owner="desk"), lambda d: d.owner, "desk"),
        (lambda c: c["pipeline"].update(retries=4), lambda d: d.tasks[0].retries, 4),
        (
            lambda c: c["pipeline"].update(retry_delay_seconds=7),
            lambda d: d.tasks[0].retry_delay,
            timedelta(seconds=7),
        ),
        (
            lambda c: c["pipeline"].update(start_date="2025-06-01"),
            lambda d: d.start_date,
            datetime(2025, 6, 1, tzinfo=UTC),
        ),
    ],
)
def test_what_the_deployments_file_says_is_what_the_dag_does(
    changed: Any, change: Any, read: Any, expected: object
) -> None:
    assert read(changed(change)[COLLECTION]) == expected


def test_the_gate_takes_its_times_from_the_deployments_file(changed: Any) -> None:
    times = {"gate_poke_seconds": 3, "gate_timeout_minutes": 5, "gate_missing_run_minutes": 1}
    gate = changed(lambda c: c["pipeline"].update(times))[FEATURES].get_task("wait_for_bars")
    assert (gate.poke_interval, gate.timeout, gate.missing_run) == (3, 300, timedelta(minutes=1))


@pytest.mark.parametrize(
    ("variable", "content", "named"),
    [
        ("MLTRADING_SYMBOLS_FILE", "# none\n", "holds no symbol"),
        ("MLTRADING_SYMBOLS_FILE", "AAPL\n-rf\n", "line 2"),
        ("MLTRADING_DEPLOYMENTS_FILE", "surprise: 1\n", "unknown key surprise"),
    ],
)
def test_a_wrong_file_is_an_import_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, content: str, named: str
) -> None:
    path = tmp_path / "wrong"
    path.write_text(content)
    monkeypatch.setenv(variable, str(path))
    errors = load_dags().import_errors
    assert len(errors) == 3
    for trace in errors.values():
        assert [line for line in trace.splitlines() if named in line and str(path) in line]


def told_by(script: str, **environment: str) -> list[str]:
    """The lines that a script prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=PROJECT_ROOT,
        env={**os.environ, "PYTHONPATH": f"{PROJECT_ROOT}:{PROJECT_ROOT}/tests", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_parsing_needs_no_database_no_network_and_no_heavy_library() -> None:
    script = """
import socket, sys
def refuse(*arguments): raise AssertionError(f"connects to {arguments[1:]}")
socket.socket.connect = refuse
from airflow_lanes import load_dags
before = set(sys.modules)
bag = load_dags()
assert not bag.import_errors, bag.import_errors
assert len(bag.dags) == 3
print(*(set(sys.modules) - before))
"""
    nowhere = "postgresql+psycopg2://nobody@127.0.0.1:9/none"
    told = told_by(script, AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=nowhere)
    loaded = set(told[-1].split())
    assert "include.mltrading.airflow.operator" in loaded
    assert loaded & {"pandas", "talib", "yfinance", "exchange_calendars", "psycopg", "curl_cffi"} == set()


def test_a_process_with_the_preload_plugin_has_nothing_of_ours_left_to_import() -> None:
    script = """
import runpy, sys
from airflow_lanes import load_dags
runpy.run_path("plugins/preload.py")
before = set(sys.modules)
bag = load_dags()
assert len(bag.dags) == 3, bag.import_errors
print(*sorted(name for name in set(sys.modules) - before if name.startswith("include.")))
print("include.mltrading.airflow.operator" in before)
"""
    assert told_by(script)[-2:] == ["", "True"]


@on_3
def test_a_dag_is_the_same_whichever_process_reads_it() -> None:
    """Or each reading after a run would make a new version of it."""
    script = """
from airflow.models.serialized_dag import SerializedDagModel
from airflow.serialization.serialized_objects import DagSerialization
from airflow_lanes import load_dags
dags = load_dags().dags
hashes = {dag_id: SerializedDagModel.hash(DagSerialization.to_dict(dags[dag_id])) for dag_id in dags}
assert len(hashes) == 3
print(sorted(hashes.items()))
"""
    # Each process has other addresses.
    assert told_by(script)[-1] == told_by(script)[-1]
