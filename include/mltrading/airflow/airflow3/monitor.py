"""The pages of the market monitor in Airflow 3, for everybody who may see the website."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
from airflow.api_fastapi.core_api.security import requires_access_view
from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader
from starlette.staticfiles import StaticFiles

from include.mltrading.airflow.airflow3.runs import map_index_of
from include.mltrading.airflow.monitor_page import (
    MENU_ITEM,
    NEVER_STORED,
    PLUGINS,
    asked_data,
    asked_symbol,
    health_answer,
    kept_seconds,
)

_templates = Environment(loader=FileSystemLoader(PLUGINS / "templates"), autoescape=True)
_static = StaticFiles(directory=PLUGINS / "static")
# Each route of a plugin is open to everybody, unless it says otherwise: all but `health` stand in here.
_pages = APIRouter(dependencies=[Depends(requires_access_view(AccessView.WEBSITE))])


def _page(name: str, title: str) -> HTMLResponse:
    template = _templates.get_template("airflow3.html")
    return HTMLResponse(template.render(page=name, title=title))


@_pages.get("/")
def page() -> HTMLResponse:
    """The page, which fetches its data."""
    return _page("market_monitor", MENU_ITEM)


@_pages.get("/symbol")
def symbol() -> HTMLResponse:
    """The page of the symbol that the address names."""
    return _page("market_symbol", f"Symbol - {MENU_ITEM}")


@_pages.get("/data")
def data(parts: str | None = None) -> JSONResponse:
    """?parts=pipelines,health: the page's data."""
    return _json(*asked_data(parts))


@_pages.get("/symbol_data")
def symbol_data(symbol: str = "", sessions: str | None = None) -> JSONResponse:
    """?symbol=AAPL&sessions=20: its bars and marks."""
    return _json(*asked_symbol(symbol, sessions))


@_pages.get("/log")
def log(dag_id: str = "", run_id: str = "", step: str = "", symbol: str = "") -> RedirectResponse:
    """On to the log of the task instance that served the symbol; without one, to the run or to the DAG."""
    place = f"../dags/{quote(dag_id, safe='')}"
    if run_id:
        place += f"/runs/{quote(run_id, safe='')}"
    index = map_index_of(dag_id, run_id, step, symbol) if symbol else None
    if index is not None:
        place += f"/tasks/{quote(step, safe='')}/mapped/{index}"
    return RedirectResponse(place, 302)


@_pages.get("/static/{filename:path}")
async def static(filename: str) -> Any:
    """A file of plugins/static."""
    reply = await _static.get_response(filename, {"type": "http", "method": "GET", "headers": []})
    reply.headers["Cache-Control"] = f"private, max-age={kept_seconds(filename)}"
    return reply


app = FastAPI(title=MENU_ITEM, docs_url=None, redoc_url=None, openapi_url=None)
app.include_router(_pages)


@app.get("/health")
def health() -> PlainTextResponse:
    """One word for anybody: up with status 200, stale or down with 503."""
    word, status = health_answer()
    return PlainTextResponse(word, status, NEVER_STORED)


def _json(document: dict[str, Any], status: int) -> JSONResponse:
    return JSONResponse(document, status, NEVER_STORED)
