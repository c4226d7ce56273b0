"""
### Yahoo Finance data collection

Every hour from 9:00 to 16:00 New York on weekdays: the last three sessions of every symbol, five fetches at
a time. A symbol with a gap gets the window that closes it, a new one gets a year.

A run works up to its **tick** (the end of its data interval), never up to "now": it may be cleared and
repeated at any time. On a day without a session it skips itself.

How it fares: [Market Monitor](../../market_monitor/).

| task | does |
|---|---|
| `check_session` | skips the run on a day without a session |
| `collect_symbol` | fetches, screens and stores one symbol's bars, each in a process of its own |
| `publish_bars` | counts; the features DAG waits for it; red when too few symbols were served |
| `verify_bars` | red when any symbol failed, after the others were served |
"""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG, TriggerRule

from include.mltrading.airflow.compat import task_lateness
from include.mltrading.airflow.deployment import dag_arguments, timetable
from include.mltrading.airflow.operator import MarketOperator, for_each_batch
from include.mltrading.airflow.params import data_period_param, refuse_bad_input, symbols_param
from include.mltrading.configuration.deployments import load_deployments
from include.mltrading.configuration.settings import Settings
from include.mltrading.configuration.symbols import batches, read_symbols_file

DAG_ID = "yahoo-production-data-collection"
settings = Settings.from_environment()
deployments = load_deployments(settings.deployments_file)
universe = read_symbols_file(settings.symbols_file)

with DAG(
    DAG_ID,
    schedule=timetable(deployments, DAG_ID),
    **dag_arguments(deployments, DAG_ID),
    doc_md=__doc__,
    params={"data_period": data_period_param(), "symbols": symbols_param(universe)},
):
    check_session = MarketOperator(task_id="check_session", pre_execute=refuse_bad_input)
    # A literal list: `airflow dags backfill` deadlocks on a task that is mapped over another's result.
    collect_symbol = for_each_batch(
        "collect_symbol",
        batches(universe, settings.symbols_per_task),
        pool="yahoo_api",
        minutes=8 + 2 * settings.symbols_per_task,
    )
    publish_bars = MarketOperator(
        task_id="publish_bars",
        symbols=universe,
        counts="collect_symbol",
        trigger_rule=TriggerRule.ALL_DONE,
        **task_lateness(deployments.sla(DAG_ID)),
    )
    verify_bars = MarketOperator(task_id="verify_bars", symbols=universe, retries=0)

    check_session >> collect_symbol >> publish_bars >> verify_bars
    check_session >> verify_bars
