"""The trigger forms in a real browser: they explain themselves, start one run, and refuse bad input."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from playwright.sync_api import Page, expect

from include.mltrading.market.symbols import read_symbols_file
from include.mltrading.settings import Settings

if TYPE_CHECKING:
    # Not at run time: pytest loads the module as a plugin.
    from tests.e2e.browser import Site

pytest_plugins = ["tests.e2e.browser"]
pytestmark = pytest.mark.e2e

ONDEMAND = "complete-data-and-features-ondemand"
COLLECTION = "yahoo-production-data-collection"
FEATURES = "feature-engineering-production-subprocess"
UNIVERSE = read_symbols_file(Settings().symbols_file)
FIELDS = {
    ONDEMAND: {
        "symbols": "Symbols",
        "period": "Period",
        "start": "Start",
        "end": "End",
        "recompute_features": "Recompute features",
    },
    COLLECTION: {"data_period": "Data period", "symbols": "Symbols"},
    FEATURES: {"initial_run": "Initial run", "symbols": "Symbols"},
}
BAD_SYMBOLS = ["NOPE", "'; DROP", "$(touch x)", "-rf", "A\nB", "<img src=x onerror=alert(1)>"]


@pytest.fixture
def page(admin_page: Page) -> Page:
    """Whoever triggers is logged in."""
    return admin_page


def open_form(page: Page, site: Site, dag_id: str) -> None:
    response = page.goto(f"{site.url}/dags/{dag_id}/trigger")
    assert response is not None
    assert response.status == 200


def type_configuration(page: Page, configuration: dict[str, Any]) -> None:
    """Overwrite the generated JSON by hand, as a user may."""
    page.click("#generated_json_toggle")
    expect(page.locator("#accordion_json_conf_href.in")).to_be_visible()
    page.click("#accordion_json_conf .CodeMirror")
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(json.dumps(configuration))


def trigger(page: Page) -> None:
    with page.expect_navigation():
        page.click("button:has-text('Trigger')")


def message(page: Page) -> str:
    """What the page says about the submission."""
    return " | ".join(page.locator(".alert").all_inner_texts())


def runs(page: Page, site: Site, dag_id: str) -> list[dict[str, Any]]:
    answer = page.request.get(f"{site.url}/api/v1/dags/{dag_id}/dagRuns")
    assert answer.ok
    found: list[dict[str, Any]] = answer.json()["dag_runs"]
    return found


def rows_stored(site: Site) -> dict[str, int]:
    with psycopg.connect(site.market_url) as connection:
        tables = [
            name
            for (name,) in connection.execute(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1"
            )
        ]
        assert "market_data" in tables
        return {
            name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchall()[0][0]  # noqa: S608
            for name in tables
        }


def assert_refused(page: Page, site: Site, dag_id: str, name: str) -> None:
    """The form stands there again, the field is named in one line, there is no run, nothing is stored."""
    expect(page.locator("#trigger_form")).to_be_visible()
    text = message(page)
    assert f"Invalid input for param {name}:" in text
    assert len(text.splitlines()) < 6
    assert runs(page, site, dag_id) == []


@pytest.mark.parametrize("dag_id", FIELDS)
def test_the_form_shows_every_param_with_title_and_description(page: Page, site: Site, dag_id: str) -> None:
    open_form(page, site, dag_id)

    rows = page.locator("#trigger_form > .panel > .panel-body > table > tbody > tr")
    assert rows.count() == len(FIELDS[dag_id])
    for name, title in FIELDS[dag_id].items():
        row = page.locator(f"tr:has(> td > label[for=element_{name}])")
        assert row.locator("td").first.inner_text().rstrip(" *:\n") == title
        assert len(row.locator(".help-block").inner_text()) > 20
    assert page.locator("#element_symbols").get_attribute("multiple") is not None
    assert page.locator("#element_symbols option").all_inner_texts() == UNIVERSE


def test_bad_input_is_refused_by_the_on_demand_form_and_stores_nothing(page: Page, site: Site) -> None:
    before = rows_stored(site)
    open_form(page, site, ONDEMAND)
    for symbol in BAD_SYMBOLS:
        type_configuration(page, {"symbols": [symbol], "period": "1y"})
        trigger(page)
        assert_refused(page, site, ONDEMAND, "symbols")
        assert repr(symbol) in message(page)
    others = [
        ("period", {"period": "5y"}),
        ("start", {"start": "yesterday"}),
        ("end", {"end": "2001-01-02"}),
        ("recompute_features", {"recompute_features": "yes"}),
        ("symbol", {"symbol": ["AAPL"]}),
    ]
    for name, configuration in others:
        type_configuration(page, configuration)
        trigger(page)
        assert_refused(page, site, ONDEMAND, name)
    assert rows_stored(site) == before


def test_a_start_after_the_end_is_refused_and_what_was_typed_stays(page: Page, site: Site) -> None:
    before = rows_stored(site)
    today = datetime.now(UTC).date()
    start, end = str(today - timedelta(days=10)), str(today - timedelta(days=20))
    open_form(page, site, ONDEMAND)
    page.select_option("#element_symbols", ["AAPL", "MSFT"])
    page.select_option("#element_period", "2y")
    page.fill("#element_start", start)
    page.fill("#element_end", end)
    page.locator("label[for=element_recompute_features] .switch").click()
    trigger(page)

    assert_refused(page, site, ONDEMAND, "start")
    assert f"start {start}T00:00:00+00:00 is not before end {end}T00:00:00+00:00" in message(page)
    assert page.input_value("#element_start") == start
    assert page.input_value("#element_end") == end
    assert page.input_value("#element_period") == "2y"
    assert page.is_checked("#element_recompute_features")
    assert page.locator("#element_symbols option:checked").all_inner_texts() == ["AAPL", "MSFT"]

    # Nobody else finds it in the form.
    open_form(page, site, ONDEMAND)
    assert page.input_value("#element_start") == page.input_value("#element_end") == ""
    assert page.input_value("#element_period") == "1y"
    assert page.locator("#element_symbols option:checked").count() == 0

    # A start that is still to come is after the end of the run itself.
    page.fill("#element_start", str(today + timedelta(days=2)))
    trigger(page)
    assert_refused(page, site, ONDEMAND, "start")
    assert rows_stored(site) == before


@pytest.mark.parametrize("data_period", ["0d", "61d", "abc"])
def test_a_wrong_data_period_is_refused(page: Page, site: Site, data_period: str) -> None:
    open_form(page, site, COLLECTION)
    page.fill("#element_data_period", data_period)
    trigger(page)

    assert_refused(page, site, COLLECTION, "data_period")
    assert page.input_value("#element_data_period") == data_period


@pytest.mark.parametrize("dag_id", [COLLECTION, FEATURES])
def test_an_unknown_symbol_is_refused_by_the_scheduled_dags_too(page: Page, site: Site, dag_id: str) -> None:
    open_form(page, site, dag_id)
    type_configuration(page, {"symbols": ["AAPL", "NOPE"]})
    trigger(page)

    assert_refused(page, site, dag_id, "symbols")


VALID: dict[str, dict[str, Any]] = {
    ONDEMAND: {
        "symbols": ["AAPL", "BRK-B"], "period": "1y", "start": None, "end": None, "recompute_features": False,
    },
    COLLECTION: {"data_period": "60d", "symbols": ["AAPL", "BRK-B"]},
    FEATURES: {"initial_run": False, "symbols": ["AAPL", "BRK-B"]},
}  # fmt: skip


@pytest.mark.parametrize("dag_id", VALID)
def test_a_valid_submission_creates_exactly_one_run_with_its_values(
    page: Page, site: Site, dag_id: str
) -> None:
    open_form(page, site, dag_id)
    for symbol in VALID[dag_id]["symbols"]:
        page.click("tr:has(#element_symbols) .select2-choices, tr:has(#element_symbols) .select2-selection")
        page.keyboard.type(symbol)
        page.keyboard.press("Enter")
    if "data_period" in VALID[dag_id]:
        page.fill("#element_data_period", VALID[dag_id]["data_period"])
    trigger(page)

    assert f"Triggered {dag_id} with new Run ID" in message(page)
    (run,) = runs(page, site, dag_id)
    assert run["conf"] == VALID[dag_id]
    assert run["run_type"] == "manual"
