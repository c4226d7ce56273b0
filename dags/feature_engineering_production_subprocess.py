"""
### Production feature engineering

Five minutes after each collection: the technical indicators of every symbol's new and changed bars, each
symbol in a process of its own. Features exist for final bars only, one row for each.

The gate waits until the collection of the same tick has published its bars. A manual run does not wait; a
backfill without a collection computes from the bars that are stored. A run may be cleared and repeated at
any time: it computes what is stale then.

How it fares: [Market Monitor](../../market_monitor/).

| task | does |
|---|---|
| `wait_for_bars` | the gate: opens when the same tick's `publish_bars` succeeds, skips when it was skipped |
| `compute_features` | computes and stores one symbol's features, each in a process of its own |
| `publish_features` | counts; red when too few symbols were served |
| `verify_features` | red when any symbol failed or a final bar has no feature row |
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG, TriggerRule

from include.mltrading.airflow.compat import task_lateness
from include.mltrading.airflow.deployment import dag_arguments, timetable
from include.mltrading.airflow.gate import CollectionGate
from include.mltrading.airflow.operator import MarketOperator, for_each_batch
from include.mltrading.airflow.params import initial_run_param, refuse_bad_input, symbols_param
from include.mltrading.configuration.deployments import load_deployments
from include.mltrading.configuration.settings import Settings
from include.mltrading.configuration.symbols import batches, read_symbols_file

DAG_ID = "feature-engineering-production-subprocess"
COLLECTION_DAG_ID = "yahoo-production-data-collection"
settings = Settings.from_environment()
deployments = load_deployments(settings.deployments_file)
universe = read_symbols_file(settings.symbols_file)
pipeline = deployments.pipeline

with DAG(
    DAG_ID,
    schedule=timetable(deployments, DAG_ID),
    **dag_arguments(deployments, DAG_ID),
    doc_md=__doc__,
    params={"initial_run": initial_run_param(), "symbols": symbols_param(universe)},
):
    wait_for_bars = CollectionGate(
        task_id="wait_for_bars",
        pre_execute=refuse_bad_input,
        external_dag_id=COLLECTION_DAG_ID,
        external_task_id="publish_bars",
        collection_schedule=deployments.schedule(COLLECTION_DAG_ID),
        missing_run=timedelta(minutes=pipeline.gate_missing_run_minutes),
        skipped_states=["skipped"],
        failed_states=["failed", "upstream_failed"],
        poke_interval=pipeline.gate_poke_seconds,
        timeout=pipeline.gate_timeout_minutes * 60,
        pool="sensors",
    )
    # A literal list: `airflow dags backfill` deadlocks on a task that is mapped over another's result.
    compute_features = for_each_batch(
        "compute_features",
        batches(universe, settings.symbols_per_task),
        pool="market_db",
        minutes=9 + settings.symbols_per_task,
    )
    publish_features = MarketOperator(
        task_id="publish_features",
        symbols=universe,
        counts="compute_features",
        trigger_rule=TriggerRule.ALL_DONE,
        **task_lateness(deployments.sla(DAG_ID)),
    )
    verify_features = MarketOperator(task_id="verify_features", symbols=universe, retries=0)

    wait_for_bars >> compute_features >> publish_features >> verify_features
    wait_for_bars >> verify_features
