"""The page "Market Monitor" in a real browser: planted numbers, who may see it, a database that is away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest
from playwright.sync_api import Page, expect

from include.mltrading.features.definitions import FEATURE_VERSION
from include.mltrading.market.calendar import bars_of, last_sessions
from include.mltrading.market.symbols import read_symbols_file
from include.mltrading.monitor.snapshot import PARTS
from include.mltrading.settings import Settings

if TYPE_CHECKING:
    # Not at run time: pytest loads the module as a plugin.
    from tests.e2e.browser import Site

pytest_plugins = ["tests.e2e.browser"]
pytestmark = pytest.mark.e2e

COLLECTION = "yahoo-production-data-collection"
RUN_ID = "scheduled__2026-01-05T15:00:00+00:00"
SYMBOLS = read_symbols_file(Settings().symbols_file)
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
        connection.execute(
            "INSERT INTO quarantined_bars (symbol, timestamp, reason, payload_hash, payload, correlation_id)"
            " VALUES ('MSFT', %s, 'high below low', 'a', '{}', 'c')",
            (due[-33],),
        )
        connection.execute(
            "INSERT INTO alerts (key, condition, kind, severity, subject, details)"
            " VALUES ('a', 'a', 'bars_missing', 'warning', 'some <b>bars</b> are missing', '{}')"
        )
    yield due
    with psycopg.connect(site.market_url, autocommit=True) as connection:
        connection.execute(
            "TRUNCATE market_data, data_source, symbol_state, processing_history, quarantined_bars, alerts"
        )


def open_monitor(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/market_monitor/")
    expect(page.locator("#mm-as-of")).to_contain_text("UTC")


def cells(page: Page, table: str, text: str) -> list[str]:
    return page.locator(f"#{table} tbody tr").filter(has_text=text).first.locator("td").all_inner_texts()


def totals(page: Page) -> dict[str, int]:
    expect(page.locator("[data-total]")).to_have_count(7)
    tiles = page.locator("[data-total]").all()
    return {str(tile.get_attribute("data-total")): int(tile.locator("strong").inner_text()) for tile in tiles}


def shown_symbols(page: Page) -> list[str]:
    return page.locator("#mm-symbols tbody tr:not([hidden]) td:first-child").all_inner_texts()


def polled(page: Page, site: Site, done: Callable[[int, str], bool]) -> tuple[int, str]:
    """What /health says once it says the right thing; it looks at most every ten seconds."""
    give_up = time.monotonic() + 30
    while True:
        answer = page.request.get(f"{site.url}/market_monitor/health", max_redirects=0)
        if done(answer.status, answer.text()) or time.monotonic() > give_up:
            return answer.status, answer.text()
        time.sleep(0.5)


def test_the_page_shows_what_is_planted(page: Page, site: Site, planted: list[datetime]) -> None:
    site.log_in(page, site.admin)
    page.click(".navbar a:has-text('Market Monitor')")

    expect(page.locator("#mm-content")).to_be_visible()
    assert totals(page) == {
        "symbols": len(SYMBOLS), "fresh": 1, "late": 0, "stale": 1, "empty": len(SYMBOLS) - 2,
        "missing": len(SYMBOLS) - 1, "features_behind": 1,
    }  # fmt: skip
    expect(page.locator("[data-fact=alerts]")).to_have_text("1")
    assert page.locator("#mm-source").inner_text() == "simulated data"
    assert "status again every 30 s, freshness 45 s, health 60 s" in page.locator("#mm-refresh").inner_text()
    expect(page.locator("#mm-message")).to_have_attribute("data-state", "attention")
    expect(page.locator("#mm-message")).to_contain_text("1 symbol is stale")
    collection = cells(page, "mm-pipelines", "Yahoo Finance Data Collection")
    assert collection[:2] + collection[3:10] == [
        "Yahoo Finance Data Collection", "2026-01-05 16:00", "collect_symbol",
        "2", "1", "1,421", "1 min 15 s",
        "–", "–",  # noqa: RUF001
    ]  # fmt: skip
    assert collection[2].split() == ["failed", "paused"]
    # In the order of priority.
    names = page.locator("#mm-pipelines tbody tr td:first-child").all_inner_texts()
    assert names[0] == "Complete Data + Features Pipeline"
    assert names[1:] == ["Production Feature Engineering", "Yahoo Finance Data Collection"]
    newest = [f"{start:%Y-%m-%d %H:%M}" for start in (planted[-1], planted[-31])]
    aapl, msft = (cells(page, "mm-symbols", symbol) for symbol in ("AAPL", "MSFT"))
    assert aapl[:2] + aapl[3:] == ["AAPL", newest[0], "0", "0", "0", "fresh"]
    assert msft[:2] + msft[3:] == ["MSFT", newest[1], "30", "30", "3", "stale"]
    assert cells(page, "mm-symbols", "TSLA") == [
        "TSLA", "–", "–", "–", str(len(planted)), "0", "without bars",  # noqa: RUF001
    ]  # fmt: skip
    assert page.locator("#mm-expected").inner_text() == newest[0]
    # Performance: the slowest first, and the one run as a bar.
    costs = page.locator("#mm-costs tbody tr td:first-child").all_inner_texts()
    assert costs == ["MSFT", "TSLA", "AAPL"]
    assert page.locator(f"[data-dag={COLLECTION}] rect").count() == 1
    # Health: a text from the database stays a text.
    assert page.locator("#mm-alerts tbody").inner_text().startswith("warning\tsome <b>bars</b> are missing")
    assert page.locator("[data-fact=quarantine]").inner_text() == "1 (1 in 24 h)"
    assert page.locator("[data-fact=connections]").inner_text().endswith("of 25")
    # The link goes to the run's grid, from where the DAG's description leads back.
    page.click("#mm-pipelines a:has-text('Yahoo Finance Data Collection')")
    page.wait_for_url(f"{site.url}/dags/{COLLECTION}/grid?dag_run_id=*")


def test_symbols_are_sorted_and_filtered_also_by_the_keyboard(
    page: Page, site: Site, planted: list[datetime]
) -> None:
    page.clock.install()
    site.log_in(page, site.viewer)
    open_monitor(page, site)
    everybody = len(SYMBOLS)
    assert totals(page)["symbols"] == everybody
    assert shown_symbols(page) == sorted(SYMBOLS)
    header = page.locator("#mm-symbols th", has_text="Bars behind")
    header.locator("button").focus()
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    # Who has no bar has no number, and stands last either way.
    assert shown_symbols(page)[:2] == ["MSFT", "AAPL"]
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    assert shown_symbols(page)[:2] == ["AAPL", "MSFT"]
    page.fill("#mm-filter", "msf")
    assert shown_symbols(page) == ["MSFT"]
    assert page.locator("#mm-shown").inner_text() == f"1 of {everybody} symbols"
    page.fill("#mm-filter", "")
    page.click("[data-total=stale]")
    assert shown_symbols(page) == ["MSFT"]
    # A refresh brings what is new, keeps the choice and the rows, and nothing moves.
    expect(page.locator("[data-fact=alerts]")).to_have_text("1")
    places = [page.locator(f"#mm-part-{part}").bounding_box() for part in PARTS]
    page.evaluate("window.kept = document.querySelector('#mm-symbols tbody tr:not([hidden])')")
    with psycopg.connect(site.market_url, autocommit=True) as connection:
        connection.execute("UPDATE symbol_state SET stale_from = %s WHERE symbol = 'MSFT'", (planted[-32],))
    page.clock.run_for(61_000)
    expect(page.locator("#mm-symbols tbody tr:not([hidden]) td:nth-child(6)")).to_have_text("2")
    assert shown_symbols(page) == ["MSFT"]
    assert page.evaluate("window.kept === document.querySelector('#mm-symbols tbody tr:not([hidden])')")
    assert [page.locator(f"#mm-part-{part}").bounding_box() for part in PARTS] == places


def test_a_symbol_has_a_page_with_its_chart_and_the_bars_to_look_at(
    page: Page, site: Site, planted: list[datetime]
) -> None:
    wrong: list[str] = []
    # Airflow's own scripts have errors of their own.
    page.on(
        "pageerror", lambda error: wrong.append(f"{error.stack}") if "market_" in f"{error.stack}" else None
    )
    outside: list[str] = []
    page.on("request", lambda sent: None if sent.url.startswith(site.url) else outside.append(sent.url))
    site.log_in(page, site.viewer)
    open_monitor(page, site)
    page.click("#mm-symbols a:has-text('MSFT')")
    page.wait_for_url(f"{site.url}/market_monitor/symbol?symbol=MSFT")
    expect(page.locator("#ms-message")).to_have_attribute("data-state", "ok")
    shown = len(planted) - 30
    expect(page.locator("#ms-message")).to_contain_text(
        f"{shown} bars of 20 sessions; 30 missing, 1 quarantined, 0 revised"
    )
    assert page.locator("#ms-chart canvas").count() > 4
    marks = page.locator("#ms-marks tbody tr")
    assert marks.count() == 31
    assert marks.last.locator("td").all_inner_texts() == [
        f"{planted[-33]:%Y-%m-%d %H:%M}", "quarantined", "high below low",
    ]  # fmt: skip
    expect(page.locator("#ms-tries tbody tr")).to_have_count(1)
    # A run that Airflow does not know has no log: its link leads to the run's grid.
    assert page.locator("#ms-tries a").nth(1).inner_text() == "collect_symbol"
    page.locator("#ms-tries a").nth(1).click()
    page.wait_for_url(f"{site.url}/dags/{COLLECTION}/grid?dag_run_id=*")
    assert (wrong, [url for url in outside if not url.startswith(("data:", "blob:"))]) == ([], [])
    for name, status in (("NOSUCH", 404), ("no symbol;", 400)):
        answer = page.request.get(f"{site.url}/market_monitor/symbol_data", params={"symbol": name})
        assert (answer.status, answer.json()["state"]) == (status, "unknown")


def test_a_dags_page_leads_to_the_monitor(page: Page, site: Site) -> None:
    site.log_in(page, site.viewer)
    page.goto(f"{site.url}/dags/{COLLECTION}/grid")
    address = page.locator("a:has-text('Market Monitor')[href*='market_monitor']").last.evaluate(
        "a => a.href"
    )
    docs = page.evaluate("document.body.innerHTML.includes('../../market_monitor/')")
    assert address == f"{site.url}/market_monitor/"
    assert docs


def test_an_anonymous_user_gets_nothing_but_one_word(page: Page, site: Site) -> None:
    for path in (
        "",
        "data",
        "data?parts=health",
        "symbol?symbol=AAPL",
        "symbol_data?symbol=AAPL",
        "log?dag_id=a",
    ):
        answer = page.request.get(f"{site.url}/market_monitor/{path}", max_redirects=0)
        assert answer.status == 302, path
        assert "/login/" in answer.headers["location"]
        page.goto(f"{site.url}/market_monitor/{path}")
        assert "/login/" in page.url
        assert "as_of" not in page.content()
    answer = page.request.get(f"{site.url}/market_monitor/health", max_redirects=0)
    assert answer.status == 503
    assert answer.text() in ("stale", "down")
    assert page.request.post(f"{site.url}/market_monitor/health").status in (400, 405)


def test_a_viewer_sees_it_in_the_menu_and_may_not_trigger(page: Page, site: Site) -> None:
    site.log_in(page, site.viewer)
    page.click(".navbar a:has-text('Market Monitor')")
    expect(page.locator("#mm-content")).to_be_visible()
    # Read-only: there is nothing to send.
    assert page.request.post(f"{site.url}/market_monitor/data").status in (400, 405)
    page.goto(f"{site.url}/dags/{COLLECTION}/trigger")
    assert page.locator("#trigger_form").count() == 0


def test_an_empty_database_says_what_to_do_and_a_first_run_that_it_is_under_way(
    page: Page, site: Site
) -> None:
    site.log_in(page, site.viewer)
    open_monitor(page, site)

    expect(page.locator("#mm-message")).to_have_attribute("data-state", "empty")
    expect(page.locator("#mm-message")).to_contain_text(
        "trigger the DAG Complete Data + Features Pipeline to load the first bars"
    )
    with psycopg.connect(site.market_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO processing_history (dag_id, run_id, step, symbol, try, correlation_id, window_end,"
            " status) VALUES ('complete-data-and-features-ondemand', 'r', 'collect_symbol', 'AAPL', 1, 'c',"
            " now(), 'running')"
        )
        try:
            open_monitor(page, site)
            expect(page.locator("#mm-message")).to_have_attribute("data-state", "first_run")
            assert "running" in cells(page, "mm-pipelines", "Complete Data + Features Pipeline")
        finally:
            connection.execute("TRUNCATE processing_history")


def test_a_database_that_goes_away_is_told_and_the_page_recovers_by_itself(
    page: Page, site: Site, planted: list[datetime]
) -> None:
    with psycopg.connect(site.market_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO market_data (symbol, timestamp, open, high, low, close, volume, is_final, source)"
            " SELECT symbol, %s, 1, 1, 1, 1, 1, true, 'simulated' FROM unnest(%s::text[]) AS asked (symbol)"
            " ON CONFLICT DO NOTHING",
            (planted[-1], SYMBOLS),
        )
    assert polled(page, site, lambda status, word: word == "up") == (200, "up")
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
        assert polled(page, site, lambda status, word: word == "down") == (503, "down")
    finally:
        site.market.start()
    with psycopg.connect(site.market_url, autocommit=True) as connection:
        connection.execute("UPDATE processing_history SET rows_written = 5000 WHERE symbol = 'AAPL'")
    page.clock.run_for(62_000)
    expect(box).to_have_attribute("data-state", "attention")
    expect(page.locator("#mm-pipelines tbody")).to_contain_text("5,021")
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
