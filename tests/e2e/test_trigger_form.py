"""The trigger forms in a real browser: they explain themselves, start one run, and refuse bad input."""

from __future__ import annotations

import html
import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from airflow_lanes import on_2
from playwright.sync_api import Browser, BrowserContext, Page, expect

from include.mltrading.configuration.settings import Settings
from include.mltrading.configuration.symbols import read_symbols_file

if TYPE_CHECKING:
    # Not at run time: pytest loads the module as a plugin.
    from tests.e2e.browser import Site

pytest_plugins = ["tests.e2e.browser"]
pytestmark = [pytest.mark.e2e, on_2]

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
BAD_SYMBOLS = ["<img src=x onerror=alert(1)>", "A\nB", "NOPE", "'; DROP", "$(touch x)", "-rf"]


@pytest.fixture
def page(admin_page: Page) -> Page:
    """Whoever triggers is logged in."""
    return admin_page


def open_form(page: Page, site: Site, dag_id: str) -> None:
    response = page.goto(f"{site.url}/dags/{dag_id}/trigger")
    assert response is not None
    assert response.status == 200


def open_options(page: Page) -> None:
    """The part of the form that holds the logical date and the generated JSON."""
    page.click("#generated_json_toggle")
    expect(page.locator("#accordion_json_conf_href.in")).to_be_visible()


def type_configuration(page: Page, configuration: dict[str, Any]) -> None:
    """Overwrite the generated JSON by hand, as a user may."""
    open_options(page)
    page.click("#accordion_json_conf .CodeMirror")
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(json.dumps(configuration))
    expect(page.locator("#accordion_json_conf .CodeMirror-line")).to_have_text([json.dumps(configuration)])


def trigger(page: Page) -> None:
    with page.expect_navigation():
        page.click("button:has-text('Trigger')")


def send(page: Page, site: Site, dag_id: str, **fields: str) -> str:
    """Send the form that is open, but with these fields, as no browser would; the text of the answer."""
    token = page.locator("[name=csrf_token]").first.input_value()
    answer = page.request.post(f"{site.url}/dags/{dag_id}/trigger", form={"csrf_token": token, **fields})
    assert answer.status == 200
    return html.unescape(answer.text())


def runs(page: Page | BrowserContext, site: Site, dag_id: str) -> list[dict[str, Any]]:
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


def assert_refused(page: Page, site: Site, dag_id: str, why: str) -> None:
    """The form stands there again, why is told in a line that begins with the field, there is no run."""
    expect(page.locator("#trigger_form")).to_be_visible()
    told = page.locator(".alert", has_text=f"Invalid input for param {why}")
    expect(told).to_be_visible()
    assert len(told.inner_text().splitlines()) < 6
    assert runs(page, site, dag_id) == []


def expect_values(page: Page, *, symbols: list[str], **texts: str) -> None:
    """Wait until the form is filled so."""
    for name, text in texts.items():
        expect(page.locator(f"#element_{name}")).to_have_value(text)
    expect(page.locator("#element_symbols option:checked")).to_have_text(symbols)


@pytest.mark.parametrize("dag_id", FIELDS)
def test_the_form_shows_every_param_with_title_and_description(page: Page, site: Site, dag_id: str) -> None:
    open_form(page, site, dag_id)

    rows = page.locator("#trigger_form > .panel > .panel-body > table > tbody > tr")
    expect(rows).to_have_count(len(FIELDS[dag_id]))
    for name, title in FIELDS[dag_id].items():
        row = page.locator(f"tr:has(> td > label[for=element_{name}])")
        expect(row.locator("td").first).to_have_text(re.compile(rf"^\s*{title}\W*$"))
        expect(row.locator(".help-block")).to_have_text(re.compile(r"\w.{20}"))
    expect(page.locator("#element_symbols[multiple] option")).to_have_text(UNIVERSE)


def test_bad_input_is_refused_by_the_on_demand_form_and_stores_nothing(page: Page, site: Site) -> None:
    before = rows_stored(site)
    open_form(page, site, ONDEMAND)
    # What could do harm where it is shown, as a user types it; the rest without a browser's page for each.
    for symbol in BAD_SYMBOLS[:2]:
        type_configuration(page, {"symbols": [symbol], "period": "1y"})
        trigger(page)
        assert_refused(page, site, ONDEMAND, f"symbols: {symbol!r}")
    others = [
        ("period: ", {"period": "5y"}),
        ("start: ", {"start": "yesterday"}),
        ("end: ", {"end": "2001-01-02"}),
        ("end: ", {"end": "0001-01-01"}),
        ("recompute_features: ", {"recompute_features": "yes"}),
        ("symbol: ", {"symbol": ["AAPL"]}),
    ]
    others += [(f"symbols: {symbol!r}", {"symbols": [symbol]}) for symbol in BAD_SYMBOLS[2:]]
    for why, configuration in others:
        told = send(page, site, ONDEMAND, conf=json.dumps(configuration))
        assert f"Invalid input for param {why}" in told
    assert runs(page, site, ONDEMAND) == []
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

    assert_refused(
        page, site, ONDEMAND, f"start: start {start}T00:00:00+00:00 is not before end {end}T00:00:00+00:00"
    )
    expect_values(page, start=start, end=end, period="2y", symbols=["AAPL", "MSFT"])
    expect(page.locator("#element_recompute_features")).to_be_checked()

    # Nobody else finds it in the form.
    open_form(page, site, ONDEMAND)
    expect_values(page, start="", end="", period="1y", symbols=[])

    # A start that is still to come is after the end of the run itself.
    page.fill("#element_start", str(today + timedelta(days=2)))
    trigger(page)
    assert_refused(page, site, ONDEMAND, "start: ")
    assert rows_stored(site) == before


def test_an_absurd_logical_date_is_refused_by_the_form(page: Page, site: Site) -> None:
    open_form(page, site, COLLECTION)
    for logical_date in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        # By hand: the field's date picker has ideas of its own.
        told = send(page, site, COLLECTION, execution_date=logical_date, conf="{}")
        assert "give a date of the years 1970 to 2099" in told
    assert runs(page, site, COLLECTION) == []


@pytest.mark.parametrize("dag_id", FIELDS)
@pytest.mark.parametrize(
    ("sent", "why"),
    [
        ({"conf": {"symbol": ["AAPL"]}}, "Invalid input for param symbol: no such param; the params are"),
        ({"conf": {"symbols": "AAPL"}}, "Invalid input for param symbols: 'AAPL' is not of type 'array'"),
        ({"conf": {"\ud800": 1}}, "Invalid input for param \\ud800: no such param"),
        ({"conf": {"symbols": [[["AAPL"]]]}}, "Invalid input for param symbols: [['AAPL']] is not of type"),
        ({"logical_date": "0001-01-01T00:00:00+14:00"}, "Invalid logical date '0001-01-01T00:00:00+14:00'"),
        ({"logical_date": "2023-12-01T15:00:00Z"}, "Invalid logical date 2023-12-01T15:00:00+00:00: it"),
        (
            {"data_interval_start": "0001-01-01T00:00:00+14:00", "data_interval_end": "2026-01-05T00:00:00Z"},
            "Invalid data_interval_start '0001-01-01T00:00:00+14:00'",
        ),
    ],
)
def test_the_rest_api_refuses_in_one_line_what_the_form_refuses(
    admin_context: BrowserContext, site: Site, dag_id: str, sent: dict[str, Any], why: str
) -> None:
    refused = admin_context.request.post(
        f"{site.url}/api/v1/dags/{dag_id}/dagRuns",
        data=json.dumps(sent),
        headers={"Content-Type": "application/json"},
    )

    assert (refused.status, len(refused.json()["detail"].splitlines())) == (400, 1)
    assert refused.json()["detail"].startswith(why)
    assert runs(admin_context, site, dag_id) == []


@pytest.mark.parametrize("user", ["anonymous", "viewer"])
def test_who_may_not_trigger_is_told_no_more_than_that_by_the_rest_api(
    browser: Browser, site: Site, user: str
) -> None:
    with browser.new_context() as context:
        if user == "viewer":
            site.log_in(context.new_page(), site.viewer)
        refused = context.request.post(
            f"{site.url}/api/v1/dags/{ONDEMAND}/dagRuns", data={"conf": {"symbol": ["AAPL"]}}
        )
        assert (refused.status, refused.json()["detail"]) == (403, None)


@pytest.mark.parametrize("data_period", ["0d", "61d", "abc"])
def test_a_wrong_data_period_is_refused(page: Page, site: Site, data_period: str) -> None:
    open_form(page, site, COLLECTION)
    page.fill("#element_data_period", data_period)
    trigger(page)

    assert_refused(page, site, COLLECTION, "data_period: ")
    expect(page.locator("#element_data_period")).to_have_value(data_period)


@pytest.mark.parametrize("dag_id", [COLLECTION, FEATURES])
def test_an_unknown_symbol_is_refused_by_the_scheduled_dags_too(page: Page, site: Site, dag_id: str) -> None:
    open_form(page, site, dag_id)
    type_configuration(page, {"symbols": ["AAPL", "NOPE"]})
    trigger(page)

    assert_refused(page, site, dag_id, "symbols: ")


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
        expect(page.locator(".select2-highlighted, .select2-results__option--highlighted")).to_have_text(
            symbol
        )
        page.keyboard.press("Enter")
    if "data_period" in VALID[dag_id]:
        page.fill("#element_data_period", VALID[dag_id]["data_period"])
    trigger(page)

    expect(page.locator(".alert", has_text=f"Triggered {dag_id} with new Run ID")).to_be_visible()
    (run,) = runs(page, site, dag_id)
    assert run["conf"] == VALID[dag_id]
    assert run["run_type"] == "manual"
