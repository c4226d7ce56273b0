"""What Airflow 3 is asked to trigger, by form or REST API: input that a run would refuse makes no run.

Airflow checks each param against its schema, but not one against another, nor whether there is such a param.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, get_args

from airflow.sdk import Param
from airflow.sdk.definitions.param import ParamsDict

from include.mltrading.airflow.params import TOO_DEEP, find_problem
from include.mltrading.configuration.deployments import DagId
from include.mltrading.errors import UsageError
from include.mltrading.pipeline.window import parse_instant

_PATH = re.compile(r".*/api/v2/dags/([^/]+)/dagRuns")
# No run: the server refuses it with this status once it has looked at who asks.
_NOTHING, _UNREADABLE = b"[]", 422

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class TriggerGuard:
    """ASGI middleware of the API server. Who may not trigger hears so, whatever the input."""

    def __init__(self, app: Callable[[Any, Receive, Send], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Pass a request on; one with bad input without that input, and with its error in the reply."""
        path = _PATH.fullmatch(scope.get("path", ""))
        if path is None or scope.get("method") != "POST" or path[1] not in get_args(DagId):
            await self.app(scope, receive, send)
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        problem = await asyncio.to_thread(_problem, scope["app"].state.dag_bag, path[1], body)
        unread = iter([{"type": "http.request", "body": body if problem is None else _NOTHING}])

        async def again() -> Message:
            return next(unread, None) or await receive()

        if problem is None:
            await self.app(scope, again, send)
            return
        length = str(len(_NOTHING)).encode()
        headers = [(name, length if name == b"content-length" else value) for name, value in scope["headers"]]
        await self.app({**scope, "headers": headers}, again, _refusing(problem, send))


def _refusing(problem: str, send: Send) -> Send:
    """A `send` that says 400 and the problem where the server could not read the body."""
    detail = json.dumps({"detail": problem}).encode()
    replaced = False

    async def instead(message: Message) -> None:
        nonlocal replaced
        if message["type"] == "http.response.start" and message["status"] == _UNREADABLE:
            replaced = True
            headers = [pair for pair in message["headers"] if pair[0].lower() != b"content-length"]
            headers.append((b"content-length", str(len(detail)).encode()))
            await send({**message, "status": 400, "headers": headers})
        elif replaced:
            if not message.get("more_body"):
                await send({"type": "http.response.body", "body": detail})
        else:
            await send(message)

    return instead


def _problem(dag_bag: Any, dag_id: str, body: bytes) -> str | None:
    """What is wrong with triggering the DAG so; None also for what the server itself refuses."""
    from airflow.utils.session import create_session

    with create_session() as session:
        dag = dag_bag.get_latest_version_of_dag(dag_id, session=session)
    if dag is None:
        return None
    params = {name: Param(param.value, **param.schema) for name, param in dag.params.items()}
    try:
        sent = json.loads(body)
        conf = sent.get("conf") or {}
        if not isinstance(conf, Mapping):
            return None
        for name in ("data_interval_start", "data_interval_end"):
            if sent.get(name):
                parse_instant(sent[name], name)
        instant = sent.get("logical_date") or sent.get("run_after") or datetime.now(UTC)
        return find_problem(
            SimpleNamespace(params=ParamsDict(params), start_date=dag.start_date), conf, instant
        )
    except UsageError as error:
        return f"Invalid {error}"
    except RecursionError:
        return TOO_DEEP
    except (ValueError, AttributeError):
        return None  # no JSON, or no object
