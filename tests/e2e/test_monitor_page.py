"""The page "Market Monitor" in a real browser: planted numbers, who may see it, a database that is away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest
from playwright.sync_api import Page, expect

from include.mltrading.features.definitions import FEATURE_VERSION
from include.mltrading.market.calendar import bars_of, last_sessions

if TYPE_CHECKING:
    # Not at run time: pytest loads the module as a plugin.
    from tests.e2e.browser import Site

pytest_plugins = ["tests.e2e.browser"]
pytestmark = pytest.mark.e2e

COLLECTION = "yahoo-production-data-collection"
RUN_ID = "scheduled__2026-01-05T15:00:00+00:00"
_MARGIN = timedelta(seconds=30)
TICK = datetime(2026, 1, 5, 16, tzinfo=UTC)


@pytest.fixture
def planted(site: Site) -> Iterator[list[datetime]]:
    """AAPL fresh, MSFT 30 bars behind with 3 bars without features, a run with one failure; the bars due."""
    now = datetime.now(UTC)
    ends = {start: end for session in last_sessions(10, now) for start, end in bars_of(session)}
    if timedelta() < min((end - now for end in ends.values() if end > now), default=timedelta()) < _MARGIN:
        # A bar that ends between planting and looking would be due on the page only.
        time.sleep(_MARGIN.total_seconds())
        now += _MARGIN
    due = [start for start, end in ends.items() if end <= now]
    bars = [("AAPL", start) for start in due] + [("MSFT", start) for start in due[:-30]]
    with psycopg.connect(site.market_url, autocommit=True) as connection:
        connection.cursor().executemany(
            "INSERT INTO market_data (symbol, timestamp, open, high, low, close, volume, is_final, source)"
            " VALUES (%s, %s, 1, 1, 1, 1, 1, true, 'simulated')",
            bars,
        )
        connection.execute("INSERT INTO data_source (source) VALUES ('simulated')")
        connection.execute(
            "INSERT INTO symbol_state (symbol, stale_from, feature_version)"
            " VALUES ('AAPL', null, %(version)s), ('MSFT', %(stale)s, %(version)s)",
            {"version": FEATURE_VERSION, "stale": due[-33]},
        )
        connection.cursor().executemany(
            "INSERT INTO processing_history (dag_id, run_id, step, symbol, try, correlation_id, window_end,"
            " started_at, finished_at, status, rows_written)"
            " VALUES (%s, %s, 'collect_symbol', %s, 1, 'c', %s, %s, %s, %s, %s)",
            [
                (COLLECTION, RUN_ID, symbol, TICK, TICK, TICK + timedelta(seconds=seconds), status, rows)
                for symbol, seconds, status, rows in [
                    ("AAPL", 5, "ok", 1400), ("MSFT", 75, "ok", 21), ("TSLA", 30, "timeout", None),
                ]
            ],
        )  # fmt: skip
    yield due
    with psycopg.connect(site.market_url, autocommit=True) as connection:
        connection.execute("TRUNCATE market_data, data_source, symbol_state, processing_history")


def open_monitor(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/market_monitor/")
    expect(page.locator("#mm-as-of")).to_contain_text("UTC")


def cells(page: Page, table: str, text: str) -> list[str]:
    return page.locator(f"#{table} tbody tr").filter(has_text=text).first.locator("td").all_inner_texts()


def total(page: Page, name: str) -> str:
    return page.locator(f"[data-total={name}] strong").inner_text()


def test_the_page_shows_what_is_planted(page: Page, site: Site, planted: list[datetime]) -> None:
    site.log_in(page, site.admin)
    page.click(".navbar a:has-text('Market Monitor')")

    expect(page.locator("#mm-content")).to_be_visible()
    expect(page.locator("#mm-message")).to_be_hidden()
    assert page.locator("#mm-source").inner_text() == "simulated data"
    assert page.locator("#mm-refresh").inner_text() == ", again every 30 s"
    assert cells(page, "mm-pipelines", "Yahoo Finance Data Collection") == [
        "Yahoo Finance Data Collection", "2026-01-05 16:00", "collect_symbol",
        "2", "1", "1,421", "2026-01-05 16:00", "1 min 15 s",
    ]  # fmt: skip
    # In the order of priority.
    names = page.locator("#mm-pipelines tbody tr td:first-child").all_inner_texts()
    assert names[0] == "Complete Data + Features Pipeline"
    assert names[1:] == ["Production Feature Engineering", "Yahoo Finance Data Collection"]
    newest = [f"{start:%Y-%m-%d %H:%M}" for start in (planted[-1], planted[-31])]
    assert cells(page, "mm-symbols", "AAPL") == ["AAPL", newest[0], "0", "0", "fresh"]
    assert cells(page, "mm-symbols", "MSFT") == ["MSFT", newest[1], "30", "3", "stale"]
    assert cells(page, "mm-symbols", "TSLA") == ["TSLA", "–", "–", "0", "without bars"]  # noqa: RUF001
    assert page.locator("#mm-expected").inner_text() == newest[0]
    shown = page.locator("#mm-symbols tbody tr").count()
    totals = {"symbols": shown, "fresh": 1, "late": 0, "stale": 1, "empty": shown - 2, "features_behind": 1}
    assert {name: int(total(page, name)) for name in totals} == totals
    # The link goes to the run's grid.
    page.click("#mm-pipelines a:has-text('Yahoo Finance Data Collection')")
    page.wait_for_url(f"{site.url}/dags/{COLLECTION}/grid?dag_run_id=*")


def test_an_anonymous_user_gets_nothing(page: Page, site: Site) -> None:
    for path in ("", "data"):
        answer = page.request.get(f"{site.url}/market_monitor/{path}", max_redirects=0)
        assert answer.status == 302
        assert "/login/" in answer.headers["location"]
        page.goto(f"{site.url}/market_monitor/{path}")
        assert "/login/" in page.url
        assert "as_of" not in page.content()


def test_a_viewer_sees_it_in_the_menu_and_may_not_trigger(page: Page, site: Site) -> None:
    site.log_in(page, site.viewer)
    page.click(".navbar a:has-text('Market Monitor')")
    expect(page.locator("#mm-content")).to_be_visible()
    # Read-only: there is nothing to send.
    assert page.request.post(f"{site.url}/market_monitor/data").status in (400, 405)
    page.goto(f"{site.url}/dags/{COLLECTION}/trigger")
    assert page.locator("#trigger_form").count() == 0


def test_an_empty_database_says_what_to_do(page: Page, site: Site) -> None:
    site.log_in(page, site.viewer)
    open_monitor(page, site)

    expect(page.locator("#mm-message")).to_have_attribute("data-state", "empty")
    expect(page.locator("#mm-message")).to_contain_text(
        "trigger the DAG Complete Data + Features Pipeline to load the first bars"
    )


def test_a_database_that_goes_away_is_told_and_the_page_recovers_by_itself(
    page: Page, site: Site, planted: list[datetime]
) -> None:
    page.clock.install()
    site.log_in(page, site.viewer)
    open_monitor(page, site)
    seen = page.locator("#mm-as-of").inner_text()
    site.market.stop()
    try:
        page.clock.run_for(31_000)
        box = page.locator("#mm-message")
        expect(box).to_have_attribute("data-state", "down")
        expect(box).to_contain_text("The market database does not answer")
        # The last good numbers stay, marked as old, and under the time at which they were true.
        assert page.locator("#market-monitor.mm-old").count() == 1
        assert page.locator("#mm-as-of").inner_text() == seen
        answer = page.request.get(f"{site.url}/market_monitor/data")
        assert (answer.status, answer.json()["state"]) == (503, "down")
        # Nothing that helps a stranger.
        assert "127.0.0.1" not in answer.text()
        assert str(site.market.port) not in answer.text()
    finally:
        site.market.start()
    with psycopg.connect(site.market_url, autocommit=True) as connection:
        connection.execute("UPDATE processing_history SET rows_written = 5000 WHERE symbol = 'AAPL'")
    page.clock.run_for(31_000)
    expect(box).to_be_hidden()
    assert cells(page, "mm-pipelines", "Yahoo Finance Data Collection")[5] == "5,021"
    assert page.locator("#market-monitor.mm-old").count() == 0


def test_a_database_without_a_schema_names_the_remedy(page: Page, site: Site) -> None:
    with psycopg.connect(site.market_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE schema_migrations RENAME TO hidden")
        try:
            site.log_in(page, site.viewer)
            page.goto(f"{site.url}/market_monitor/")
            expect(page.locator("#mm-message")).to_have_attribute("data-state", "no_schema")
            expect(page.locator("#mm-message")).to_contain_text("python -m include.mltrading migrate")
        finally:
            connection.execute("ALTER TABLE hidden RENAME TO schema_migrations")
