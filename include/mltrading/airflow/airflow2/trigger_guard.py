"""What Airflow 2.11's web server is asked to trigger: input that a run of our DAGs would refuse makes no run.

Airflow checks each param against its schema, but not one against another, nor whether there is such a param,
and its form cannot be shown again after an error when no symbol was chosen. So the check is made before the
view. Where it fails, the form is shown, filled with what was typed; a client of the REST API gets one line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn, get_args

from airflow.api_connexion.exceptions import BadRequest
from airflow.api_connexion.security import requires_access_dag
from airflow.auth.managers.models.resource_details import DagAccessEntity
from flask import Blueprint, current_app, flash, request
from werkzeug.datastructures import CombinedMultiDict, MultiDict

from include.mltrading.airflow.params import TOO_DEEP, find_problem
from include.mltrading.configuration.deployments import DagId
from include.mltrading.errors import UsageError
from include.mltrading.pipeline.window import parse_instant

blueprint = Blueprint("mltrading_trigger_guard", __name__)


@blueprint.before_app_request
def refuse_bad_input() -> None:
    """Answer bad input in the view's place; who may send any is checked as the view does."""
    by_form = request.endpoint == "Airflow.trigger"
    if request.method != "POST" or not (by_form or str(request.endpoint).endswith("_post_dag_run")):
        return
    dag_id = (request.view_args or {}).get("dag_id", "")
    dag = current_app.dag_bag.get_dag(dag_id) if dag_id in get_args(DagId) else None  # type: ignore[attr-defined]
    if dag is None:
        return
    conf: Any = {}
    try:
        sent: Any = request.values if by_form else request.get_json(silent=True)
        conf = json.loads(sent.get("conf") or "{}") if by_form else sent.get("conf", {})
        if not isinstance(conf, Mapping):
            return
        for name in ("data_interval_start", "data_interval_end"):
            if sent.get(name):
                parse_instant(sent[name], name)
        logical_date = sent.get("logical_date") or sent.get("execution_date") or datetime.now(UTC)
        message = find_problem(dag, conf, logical_date)
    except UsageError as error:
        message = f"Invalid {error}"
    except RecursionError:
        message = TOO_DEEP
    except (ValueError, AttributeError):
        return  # no JSON, or no object: the view says so
    if message is None:
        return
    if not by_form:
        _refuse(dag_id=dag_id, message=message)
    flash(message, "error")
    # What the view does for a link to a filled form. Without a `conf` among the values it would leave the
    # typed values in its cached DAG, as defaults for everybody.
    request.method = "GET"
    request.values = CombinedMultiDict([MultiDict(_form_again(dag.params, conf))])


@requires_access_dag("POST", DagAccessEntity.RUN)
def _refuse(*, dag_id: str, message: str) -> NoReturn:
    raise BadRequest(detail=message)


def _form_again(params: Any, conf: Mapping[str, Any]) -> dict[str, str]:
    """The submitted values under the names by which the view fills the form."""
    kept = [name for name in ("origin", "run_id", "execution_date") if name in request.values]
    try:
        parse_instant(request.values.get("execution_date", ""), "logical date")
    except UsageError:
        kept = [name for name in kept if name != "execution_date"]  # the view could not show it
    typed = {name: value for name, value in conf.items() if name in params and value is not None}
    return {
        **{name: request.values[name] for name in kept},
        **{name: value if isinstance(value, str) else json.dumps(value) for name, value in typed.items()},
        "conf": json.dumps(typed),
    }
