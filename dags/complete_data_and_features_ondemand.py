"""
### Complete data and features, on demand

Loads a year of hourly bars for every symbol (or what the form asks for), then computes all features: for the
first set-up, for new symbols, after a long downtime. Trigger it with the button; it has no schedule.

A run works up to the instant at which it was triggered, also when it is cleared and repeated.

How it fares: [Market Monitor](../../market_monitor/).

| task | does |
|---|---|
| `prepare_database` | is the schema up to date, is the configuration valid? |
| `plan_symbols` | which symbols, in batches |
| `collect_symbol` | fetches, screens and stores one symbol's bars, each in a process of its own |
| `publish_bars` | counts; red when too few symbols were served |
| `compute_features` | computes and stores one symbol's features, each in a process of its own |
| `publish_features` | counts; red when too few symbols were served |
| `verify_pipeline` | red when any symbol failed or a final bar has no feature row |
"""

from __future__ import annotations

import json

from airflow.providers.common.compat.sdk import DAG, TriggerRule

from include.mltrading.airflow.compat import task_lateness
from include.mltrading.airflow.deployment import dag_arguments, timetable
from include.mltrading.airflow.operator import MarketOperator, for_each_batch
from include.mltrading.airflow.params import load_params, refuse_bad_input, symbols_param
from include.mltrading.configuration.deployments import load_deployments
from include.mltrading.configuration.settings import Settings
from include.mltrading.configuration.symbols import read_symbols_file

DAG_ID = "complete-data-and-features-ondemand"
settings = Settings.from_environment()
deployments = load_deployments(settings.deployments_file)
universe = read_symbols_file(settings.symbols_file)

with DAG(
    DAG_ID,
    schedule=timetable(deployments, DAG_ID),
    **dag_arguments(deployments, DAG_ID),
    doc_md=__doc__,
    params={"symbols": symbols_param(universe), **load_params()},
):
    prepare_database = MarketOperator(task_id="prepare_database", pre_execute=refuse_bad_input)
    plan_symbols = MarketOperator(task_id="plan_symbols", output_processor=json.loads)
    collect_symbol = for_each_batch(
        "collect_symbol", plan_symbols.output, pool="yahoo_api", minutes=8 + 2 * settings.symbols_per_task
    )
    publish_bars = MarketOperator(
        task_id="publish_bars",
        symbols=plan_symbols.output,
        counts="collect_symbol",
        trigger_rule=TriggerRule.ALL_DONE,
        **task_lateness(deployments.sla(DAG_ID)),
    )
    compute_features = for_each_batch(
        "compute_features", plan_symbols.output, pool="market_db", minutes=9 + settings.symbols_per_task
    )
    publish_features = MarketOperator(
        task_id="publish_features",
        symbols=plan_symbols.output,
        counts="compute_features",
        trigger_rule=TriggerRule.ALL_DONE,
        **task_lateness(deployments.sla(DAG_ID)),
    )
    verify_pipeline = MarketOperator(task_id="verify_pipeline", symbols=plan_symbols.output, retries=0)

    prepare_database >> plan_symbols >> collect_symbol >> publish_bars
    publish_bars >> compute_features >> publish_features >> verify_pipeline
    [prepare_database, plan_symbols, publish_bars] >> verify_pipeline
