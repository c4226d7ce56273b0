"""Airflow 2.11's trigger form, for our DAGs: input that a run would refuse makes no run.

Airflow checks each param against its schema, but not one against another, and it cannot show the form again
after an error when no symbol was chosen. So the check is made before the view: where it fails, the view shows
the form, filled with what was typed, and makes no run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

from airflow.utils import timezone
from flask import Blueprint, current_app, flash, request
from werkzeug.datastructures import CombinedMultiDict, MultiDict

from include.mltrading.airflow.params import find_problem
from include.mltrading.config import DagId

blueprint = Blueprint("mltrading_trigger_guard", __name__)


@blueprint.before_app_request
def refuse_bad_input() -> None:
    """Turn the submission of bad input into a request for the form; the view checks who may send it."""
    if request.method != "POST" or request.endpoint != "Airflow.trigger":
        return
    dag_id = (request.view_args or {}).get("dag_id")
    dag = current_app.dag_bag.get_dag(dag_id) if dag_id in get_args(DagId) else None  # type: ignore[attr-defined]
    if dag is None:
        return
    try:
        conf = json.loads(request.values.get("conf") or "{}")
        logical_date = timezone.parse(request.values.get("execution_date", timezone.utcnow().isoformat()))
    except ValueError:
        return  # the view says so
    message = find_problem(dag.params, conf, logical_date) if isinstance(conf, dict) else None
    if message is not None:
        flash(message, "error")
        # What the view does for a link to a filled form. Without a `conf` among the values it would leave the
        # typed values in its cached DAG, as defaults for everybody.
        request.method = "GET"
        request.values = CombinedMultiDict([MultiDict(_form_again(dag.params, conf))])


def _form_again(params: Any, conf: Mapping[str, Any]) -> dict[str, str]:
    """The submitted values under the names by which the view fills the form."""
    kept = ("origin", "run_id", "execution_date")
    typed = {name: value for name, value in conf.items() if name in params and value is not None}
    return {
        **{name: request.values[name] for name in kept if name in request.values},
        **{name: value if isinstance(value, str) else json.dumps(value) for name, value in typed.items()},
        "conf": json.dumps(typed),
    }
