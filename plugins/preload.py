"""What every DAG file imports, loaded when the scheduler or a worker starts.

The process of each task is forked from there and inherits it, instead of importing it anew.
"""

from datetime import timedelta

import jsonschema  # noqa: F401 - checks params
from airflow.providers.standard.operators.bash import BashOperator  # noqa: F401
from airflow.providers.standard.sensors.external_task import ExternalTaskSensor  # noqa: F401

import include.mltrading.airflow.compat
import include.mltrading.airflow.deployment
import include.mltrading.airflow.gate
import include.mltrading.airflow.operator
import include.mltrading.airflow.params
import include.mltrading.configuration.symbols

include.mltrading.airflow.compat.dag_lateness(timedelta.max)  # loads what each DAG names
