"""The page "Market Monitor" in a real browser: planted numbers, who may see it, a database that is away."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import psycopg
import pytest
import requests
from airflow_lanes import on_2
from playwright.sync_api import Page, Response, Route, expect

from include.mltrading.configuration.settings import Settings
from include.mltrading.configuration.symbols import read_symbols_file
from include.mltrading.features.definitions import FEATURE_VERSION
from include.mltrading.market.calendar import bars_of, last_sessions
from include.mltrading.monitor.figures import PARTS
from include.standalone.runs import connect_metadata

if TYPE_CHECKING:
    # Not at run time: pytest loads the module as a plugin.
    from tests.e2e.browser import Site

pytest_plugins = ["tests.e2e.browser"]
pytestmark = [pytest.mark.e2e, on_2]

COLLECTION = "yahoo-production-data-collection"
FEATURES = "feature-engineering-production-subprocess"
LOAD = "complete-data-and-features-ondemand"
RUN_ID = "scheduled__2026-01-05T15:00:00+00:00"
SYMBOLS = read_symbols_file(Settings().symbols_file)
_MARGIN = timedelta(seconds=30)
TICK = datetime(2026, 1, 5, 16, tzinfo=UTC)


@pytest.fixture
def planted(site: Site) -> Iterator[list[datetime]]:
    """AAPL fresh, NVDA late by a bar, MSFT stale by 30 with 3 bars without features, all others empty; a run
    with one failure in January and one an hour ago. The bars due.
    """
    now = datetime.now(UTC)
    ends = {start: end for session in last_sessions(10, now) for start, end in bars_of(session)}
    if timedelta() < min((end - now for end in ends.values() if end > now), default=timedelta()) < _MARGIN:
        # A bar that ends between planting and looking would be due on the page only.
        time.sleep(_MARGIN.total_seconds())
        now += _MARGIN
    due = [start for start, end in ends.items() if end <= now]
    held = {"AAPL": due, "NVDA": due[:-1], "MSFT": due[:-30]}
    bars = [(symbol, start) for symbol, starts in held.items() for start in starts]
    with psycopg.connect(site.market_url, autocommit=True) as connection:
        connection.cursor().executemany(
            "INSERT INTO market_data (symbol, timestamp, open, high, low, close, volume, is_final, source)"
            " VALUES (%s, %s, 1, 1, 1, 1, 1, true, 'simulated')",
            bars,
        )
        connection.execute("INSERT INTO data_source (source) VALUES ('simulated')")
        connection.execute(
            "INSERT INTO symbol_state (symbol, stale_from, feature_version)"
            " VALUES ('AAPL', null, %(version)s), ('NVDA', null, %(version)s),"
            " ('MSFT', %(stale)s, %(version)s)",
            {"version": FEATURE_VERSION, "stale": due[-33]},
        )
        connection.cursor().executemany(
            "INSERT INTO processing_history (dag_id, run_id, step, symbol, try, correlation_id, window_end,"
            " started_at, finished_at, status, rows_written, cpu_seconds, peak_memory_bytes, error)"
            " VALUES (%s, %s, %s, %s, 1, 'c', %s, %s, %s, %s, %s, 0.25, 41000000, %s)",
            [
                (dag_id, run_id, step, symbol, at, at, at + timedelta(seconds=seconds), status, rows, error)
                for dag_id, run_id, step, at in [
                    (COLLECTION, RUN_ID, "collect_symbol", TICK),
                    (FEATURES, "scheduled__recent", "compute_features", now - timedelta(hours=1)),
                ]
                for symbol, seconds, status, rows, error in [
                    ("AAPL", 5, "ok", 1400, None), ("MSFT", 75, "ok", 21, None),
                    ("TSLA", 30, "timeout", None, "took <i>more</i> than 30 s"),
                ]
            ],
        )  # fmt: skip
        connection.execute(
            "INSERT INTO quarantined_bars (symbol, timestamp, reason, payload_hash, payload, correlation_id)"
            " VALUES ('MSFT', %s, 'high <img src=x onerror=alert(1)> below low', 'a', '{}', 'c')",
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
    """Until all parts are drawn: from then on, what nobody touches may be read at once."""
    page.goto(f"{site.url}/market_monitor/")
    expect_parts(page)


def expect_parts(page: Page) -> None:
    """Wait until each part is drawn; one that a busy machine could not read is asked for again."""
    for part in PARTS:
        expect(page.locator(f"#mm-part-{part} .mm-part-time")).not_to_be_empty(timeout=90_000)
    expect(page.locator("#mm-content")).to_be_visible()


def cells(page: Page, table: str, text: str) -> list[str]:
    return page.locator(f"#{table} tbody tr").filter(has_text=text).first.locator("td").all_inner_texts()


def totals(page: Page) -> dict[str, int]:
    tiles = page.locator("[data-total]").all()
    return {str(tile.get_attribute("data-total")): int(tile.locator("strong").inner_text()) for tile in tiles}


def expect_symbols(page: Page, symbols: list[str], rows: str = "") -> None:
    """Wait until these are shown; rows: a CSS selector of those that count."""
    shown = page.locator(f"#mm-symbols tbody tr:not([hidden]){rows} td:first-child")
    expect(shown).to_have_text(symbols)


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
    page.goto(f"{site.url}/home")
    page.click(".navbar a:has-text('Market Monitor')")

    expect_parts(page)
    assert totals(page) == {
        "symbols": len(SYMBOLS), "fresh": 1, "late": 1, "stale": 1, "empty": len(SYMBOLS) - 3,
        "missing": len(SYMBOLS) - 1, "features_behind": 1,
    }  # fmt: skip
    expect(page.locator("[data-fact=alerts]")).to_have_text("1")
    assert page.locator("#mm-source").inner_text() == "simulated data"
    assert "status again every 30 s, freshness 45 s, health 60 s" in page.locator("#mm-refresh").inner_text()
    expect(page.locator("#mm-message")).to_have_attribute("data-state", "attention")
    expect(page.locator("#mm-message")).to_contain_text("1 symbol is stale")
    expect(page.locator("#mm-message")).to_contain_text("features of 1 symbol are behind")
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
    assert costs == ["MSFT", "MSFT", "TSLA", "TSLA", "AAPL", "AAPL"]
    assert page.locator(f"[data-dag={COLLECTION}] rect").count() == 1
    # Health: a text from the database stays a text.
    assert page.locator("#mm-alerts tbody").inner_text().startswith("warning\tsome <b>bars</b> are missing")
    assert page.locator("[data-fact=quarantine]").inner_text() == "1 (1 in 24 h)"
    assert page.locator("[data-fact=connections]").inner_text().endswith("of 25")
    # The link goes to the run's grid, from where the DAG's description leads back.
    page.click("#mm-pipelines a:has-text('Yahoo Finance Data Collection')")
    page.wait_for_url(f"{site.url}/dags/{COLLECTION}/grid?dag_run_id=*")
    described = page.locator("a[href='../../market_monitor/']")
    expect(described).to_be_attached()
    assert described.evaluate("a => a.href") == f"{site.url}/market_monitor/"


def recent(site: Site) -> datetime:
    """The tick of the run that was planted an hour ago."""
    with psycopg.connect(site.market_url) as connection:
        row = connection.execute("SELECT max(window_end) FROM processing_history").fetchone()
    assert row is not None
    instant: datetime = row[0]
    return instant.astimezone(UTC)


def test_every_number_on_the_page_is_the_snapshots(page: Page, site: Site, planted: list[datetime]) -> None:
    """What the page was sent is compared with what it shows; the snapshot itself is compared with SQL in
    tests/integration/test_monitor_snapshot.py.
    """
    answers: list[Response] = []
    page.on("response", lambda answer: answers.append(answer) if "data?parts=" in answer.url else None)
    site.log_in(page, site.viewer)
    open_monitor(page, site)
    sent: dict[str, Any] = {}
    for answer in answers:
        sent |= answer.json()
    assert set(PARTS) < set(sent)
    table = "(rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent))"

    pipelines = page.locator("#mm-pipelines tbody tr").evaluate_all(table)
    assert [row[4:11] for row in pipelines] == [
        ["–", "–", "–", "–", "–", "–", "–"],  # noqa: RUF001
        ["2", "1", "1,421", "1 min 15 s", "66.7% (0/1)", "66.7% (0/1)", instant(sent, 1)],
        ["2", "1", "1,421", "1 min 15 s", "–", "–", instant(sent, 2)],  # noqa: RUF001
    ]
    # Freshness.
    shown = page.locator("#mm-symbols tbody tr").evaluate_all(table)
    named = {"fresh": "fresh", "late": "late", "stale": "stale", "empty": "without bars"}
    assert shown == [
        [
            of["symbol"], minute(of["newest_bar"]), number(of["age_hours"], 2), number(of["bars_behind"]),
            number(of["missing"]), number(of["features_behind"]), named[of["freshness"]],
        ]
        for of in sent["freshness"]["symbols"]
    ]  # fmt: skip
    assert totals(page) == sent["freshness"]["totals"]
    assert page.locator("#mm-stale-before").inner_text() == minute(sent["freshness"]["stale_before"])
    assert page.locator("#mm-sessions").inner_text() == "10"
    # Performance.
    costs = page.locator("#mm-costs tbody tr").evaluate_all(table)
    times = {"MSFT": "1 min 15 s", "TSLA": "30 s", "AAPL": "5.0 s"}
    assert costs == [
        [of["symbol"], of["step"], of["status"], times[of["symbol"]], "0.25", "41.0 MB"]
        for of in sorted(sent["performance"]["costs"], key=lambda of: (-of["seconds"], of["symbol"]))
    ]
    captions = page.locator("#mm-charts figcaption").all_inner_texts()
    assert captions == [
        "Complete Data + Features Pipeline",
        "Production Feature Engineering: last took 1 min 15 s",
        "Yahoo Finance Data Collection: last took 1 min 15 s",
    ]
    lines = page.locator(f"[data-dag={COLLECTION}] svg text").all_text_contents()
    assert lines == ["expected 8 min", "150% 12 min", "2026-01-05 16:00"]
    bars = page.locator(f"[data-dag={COLLECTION}] rect title").all_text_contents()
    assert bars == ["2026-01-05 16:00: 1 min 15 s, failed"]
    # Health.
    health = sent["health"]
    facts = page.locator("#mm-health dd").evaluate_all(
        "(all) => Object.fromEntries(all.map((one) => [one.dataset.fact, one.textContent]))"
    )
    assert facts == {
        "database": size(health["database_bytes"]),
        "connections": f"{health['connections']} of 25",
        "growth": "collect_symbol: 0 / 0, compute_features: 1,421 / 1,421",
        "memory": free(health["memory"]),
        **{f"disk{index}": free(disk) for index, disk in enumerate(health["disks"])},
        "limit": "nothing asked yet",
        "alerts": "1",
        "quarantine": "1 (1 in 24 h)",
        "backup": "none",
    }
    tables = page.locator("#mm-tables tbody tr").evaluate_all(table)
    assert tables == [[of["name"], size(of["bytes"]), number(of["rows"])] for of in health["tables"]]
    assert len(page.locator("#mm-alerts tbody tr").all()) == 1


def minute(iso: str | None) -> str:
    return iso[:16].replace("T", " ") if iso else "–"  # noqa: RUF001


def instant(sent: dict[str, Any], index: int) -> str:
    return minute(sent["pipelines"][index]["next_tick"])


def number(value: float | None, digits: int = 0) -> str:
    return f"{value:,.{digits}f}" if value is not None else "–"  # noqa: RUF001


def size(value: float) -> str:
    unit = 0
    while value >= 1000:
        value, unit = value / 1000, unit + 1
    return f"{value:.{1 if unit > 1 and value < 100 else 0}f} {('B', 'kB', 'MB', 'GB', 'TB')[unit]}"


def free(of: dict[str, float]) -> str:
    return f"{size(of['free'])} of {size(of['total'])} free ({100 * of['free'] / of['total']:.1f}%)"


def test_symbols_are_sorted_and_filtered_also_by_the_keyboard(
    page: Page, site: Site, planted: list[datetime]
) -> None:
    page.clock.install()
    site.log_in(page, site.viewer)
    open_monitor(page, site)
    everybody = len(SYMBOLS)
    assert totals(page)["symbols"] == everybody
    expect_symbols(page, sorted(SYMBOLS))
    header = page.locator("#mm-symbols th", has_text="Bars behind")
    first_three = ":nth-child(-n + 3)"
    header.locator("button").focus()
    page.keyboard.press("Enter")
    expect(header).to_have_attribute("aria-sort", "descending")
    # Who has no bar has no number, and stands last either way.
    expect_symbols(page, ["MSFT", "NVDA", "AAPL"], first_three)
    page.keyboard.press("Enter")
    expect(header).to_have_attribute("aria-sort", "ascending")
    expect_symbols(page, ["AAPL", "NVDA", "MSFT"], first_three)
    page.fill("#mm-filter", "msf")
    expect_symbols(page, ["MSFT"])
    expect(page.locator("#mm-shown")).to_have_text(f"1 of {everybody} symbols")
    page.fill("#mm-filter", "")
    expect_symbols(page, ["AAPL", "NVDA", "MSFT"], first_three)
    page.click("[data-total=stale]")
    expect_symbols(page, ["MSFT"])
    # A refresh brings what is new, keeps the choice and the rows, and nothing moves.
    places = [page.locator(f"#mm-part-{part}").bounding_box() for part in PARTS]
    page.evaluate("window.kept = document.querySelector('#mm-symbols tbody tr:not([hidden])')")
    with psycopg.connect(site.market_url, autocommit=True) as connection:
        connection.execute("UPDATE symbol_state SET stale_from = %s WHERE symbol = 'MSFT'", (planted[-32],))
    page.clock.run_for(61_000)
    expect(page.locator("#mm-symbols tbody tr:not([hidden]) td:nth-child(6)")).to_have_text("2")
    expect_symbols(page, ["MSFT"])
    assert page.evaluate("window.kept === document.querySelector('#mm-symbols tbody tr:not([hidden])')")
    assert [page.locator(f"#mm-part-{part}").bounding_box() for part in PARTS] == places
    # Who was on a link still is, and who comes back from a symbol finds the page as it was left.
    name = page.locator("#mm-pipelines a", has_text="Yahoo Finance")
    name.focus()
    with psycopg.connect(site.market_url, autocommit=True) as connection:
        connection.execute("UPDATE processing_history SET status = 'error' WHERE symbol = 'MSFT'")
        connection.execute("UPDATE processing_history SET started_at = started_at + interval '1 s'")
    page.clock.run_for(61_000)
    expect(page.locator("#mm-pipelines tbody tr").last.locator("td").nth(5)).to_have_text("2")
    expect(name).to_be_focused()
    page.click("#mm-symbols a:has-text('MSFT')")
    page.wait_for_url(f"{site.url}/market_monitor/symbol?symbol=MSFT")
    page.go_back()
    # The browser may have kept the page itself: what counts is the address.
    page.reload()
    expect_symbols(page, ["MSFT"])
    expect(page.locator("[data-total=stale]")).to_have_attribute("aria-pressed", "true")
    expect(header).to_have_attribute("aria-sort", "ascending")


def test_who_is_logged_out_while_the_page_is_open_gets_the_login(page: Page, site: Site) -> None:
    page.clock.install()
    site.log_in(page, site.viewer)
    open_monitor(page, site)
    page.context.clear_cookies()
    page.clock.run_for(61_000)
    page.wait_for_url(re.compile("/login/"))


def test_nothing_is_called_well_before_everything_has_been_looked_at(
    page: Page, site: Site, planted: list[datetime]
) -> None:
    def calm(route: Route) -> None:
        document = route.fetch().json()
        for pipeline in document["pipelines"]:
            pipeline["airflow"]["paused"] = False
        route.fulfill(json=document)

    # But for the symbols, all is well.
    with psycopg.connect(site.market_url, autocommit=True) as connection:
        connection.execute("TRUNCATE processing_history, alerts")
    site.log_in(page, site.viewer)
    held: list[Route] = []
    page.route("**/data?parts=pipelines", calm)
    page.route("**/data?parts=freshness", lambda route: held.append(route))
    page.goto(f"{site.url}/market_monitor/")
    for part in ("pipelines", "performance", "health"):
        expect(page.locator(f"#mm-part-{part} .mm-part-time")).to_contain_text("UTC")
    expect(page.locator("#mm-content")).to_be_hidden()
    expect(page.locator("#mm-message")).to_have_attribute("data-state", "loading")
    held[0].continue_()
    expect(page.locator("#mm-content")).to_be_visible()
    expect(page.locator("#mm-message")).to_contain_text("1 symbol is stale")


def test_what_is_no_symbol_stays_a_text(page: Page, site: Site) -> None:
    site.log_in(page, site.viewer)
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    for name in (
        "../../etc/passwd",
        "<script>alert(1)</script>",
        "AAPL'; DROP TABLE market_data;--",
        "A" * 3000,
    ):
        page.goto(f"{site.url}/market_monitor/symbol?{urlencode({'symbol': name})}")
        expect(page.locator("#ms-message")).to_have_attribute("data-state", "unknown")
        expect(page.locator("#ms-name")).to_have_text(name)
        assert page.locator("#market-symbol script").count() == 0


def test_a_range_out_of_bounds_is_brought_within(page: Page, site: Site, planted: list[datetime]) -> None:
    site.log_in(page, site.viewer)
    asked = [("0", 1), ("-5", 1), ("999999999999", 500), ("all", 20), ("9" * 3000, 500), ("1e3", 20)]
    for sessions, used in asked:
        answer = page.request.get(
            f"{site.url}/market_monitor/symbol_data", params={"symbol": "AAPL", "sessions": sessions}
        )
        assert (answer.status, answer.json()["sessions"]) == (200, used)


def test_a_part_that_there_is_not_is_refused(page: Page, site: Site) -> None:
    site.log_in(page, site.viewer)
    answer = page.request.get(f"{site.url}/market_monitor/data", params={"parts": "health,secrets"})
    assert answer.status == 400
    assert "pipelines, performance, freshness, health" in answer.json()["message"]


def test_a_slow_database_is_told_and_leaves_the_web_server_to_others(
    page: Page, site: Site, planted: list[datetime]
) -> None:
    site.log_in(page, site.viewer)
    tabs = [page, *(page.context.new_page() for _ in range(5))]
    with psycopg.connect(site.market_url) as connection:
        # Nobody reads it, and nobody is refused either: as if every query took for ever.
        connection.execute("LOCK TABLE schema_migrations IN ACCESS EXCLUSIVE MODE")
        for tab in tabs:
            tab.goto(f"{site.url}/market_monitor/", wait_until="commit")
        # Six tabs ask four times each.
        assert page.request.get(f"{site.url}/api/v1/health").status == 200
        for tab in tabs:
            expect(tab.locator("#mm-message")).to_have_attribute("data-state", "slow")
        expect(page.locator("#mm-message")).to_contain_text("too slow to answer")
        connection.rollback()


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
    expect(page.locator("#ms-chart canvas").nth(4)).to_be_attached()
    marks = page.locator("#ms-marks tbody tr")
    expect(marks).to_have_count(31)
    expect(marks.last.locator("td")).to_have_text(
        [f"{planted[-33]:%Y-%m-%d %H:%M}", "quarantined", "high <img src=x onerror=alert(1)> below low"]
    )
    expect(page).to_have_title(re.compile("^MSFT - "))
    assert page.locator("#ms-tries tbody tr").all_inner_texts() == [
        f"{at:%Y-%m-%d %H:%M}\t{step}\t{at:%Y-%m-%d %H:%M}\tok\t1 min 15 s\t0.25\t41.0 MB\t21\t–"  # noqa: RUF001
        for step, at in (("compute_features", recent(site)), ("collect_symbol", TICK))
    ]
    # A run that Airflow does not know has no log: its link leads to the run's grid.
    page.click("#ms-tries a:text-is('collect_symbol')")
    page.wait_for_url(f"{site.url}/dags/{COLLECTION}/grid?dag_run_id=*")
    assert (wrong, [url for url in outside if not url.startswith(("data:", "blob:"))]) == ([], [])
    for name, status in (("NOSUCH", 404), ("no symbol;", 400)):
        answer = page.request.get(f"{site.url}/market_monitor/symbol_data", params={"symbol": name})
        assert (answer.status, answer.json()["state"]) == (status, "unknown")


def test_a_symbols_step_leads_to_the_log_of_its_own_task_instance(
    page: Page, admin_page: Page, site: Site, planted: list[datetime]
) -> None:
    site.log_in(admin_page, site.admin)
    runs = f"{site.url}/api/v1/dags/{COLLECTION}/dagRuns"
    made = admin_page.request.post(runs, data={"dag_run_id": "logged", "conf": {}})
    assert made.status == 200
    try:
        # As the worker would have left it.
        with connect_metadata(site.stack) as metadata:
            metadata.execute(
                "UPDATE task_instance SET state = 'success', try_number = 1,"
                " rendered_map_index = 'IBM, MSFT',"
                " start_date = now(), end_date = now(), hostname = 'localhost'"
                " WHERE run_id = 'logged' AND task_id = 'collect_symbol' AND map_index = 3"
            )
        folder = site.stack.state / "airflow" / "logs" / f"dag_id={COLLECTION}" / "run_id=logged"
        log = folder / "task_id=collect_symbol" / "map_index=3" / "attempt=1.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("fetched what was asked for\n")
        with psycopg.connect(site.market_url, autocommit=True) as connection:
            connection.execute(
                "UPDATE processing_history SET run_id = 'logged' WHERE dag_id = %s", (COLLECTION,)
            )
        site.log_in(page, site.viewer)
        open_monitor(page, site)
        step = page.locator("#mm-costs tr", has_text="MSFT").locator("a:text-is('collect_symbol')")
        step.click()
        page.wait_for_url(f"{site.url}/dags/{COLLECTION}/grid?*")
        place = parse_qs(urlsplit(page.url).query)
        assert (place["dag_run_id"], place["task_id"], place["map_index"], place["tab"]) == (
            ["logged"], ["collect_symbol"], ["3"], ["logs"],
        )  # fmt: skip
        expect(page.locator("body")).to_contain_text("fetched what was asked for")
    finally:
        assert admin_page.request.delete(f"{runs}/logged").status == 204


def test_an_anonymous_user_gets_nothing_but_one_word(page: Page, site: Site) -> None:
    for path in (
        "",
        "data",
        "data?parts=health",
        "symbol?symbol=AAPL",
        "symbol_data?symbol=AAPL",
        "log?dag_id=a",
        "static/market_monitor.js",
        "static/vendor/lightweight-charts-5.2.1/LICENSE",
    ):
        answer = page.request.get(f"{site.url}/market_monitor/{path}", max_redirects=0)
        assert answer.status == 302, path
        assert "/login/" in answer.headers["location"]
        page.goto(f"{site.url}/market_monitor/{path}")
        assert "/login/" in page.url
        assert "as_of" not in page.content()
    # Whatever is asked along with it, one word, and no header that tells more.
    for query in ("", "?symbol=AAPL&parts=health"):
        word = requests.get(f"{site.url}/market_monitor/health{query}", timeout=60)
        assert (word.status_code, word.text) in ((503, "stale"), (503, "down"))
        assert {name.lower() for name in word.headers} <= {
            "server", "date", "connection", "content-type", "content-length", "cache-control", "vary",
            "x-robots-tag",
        }  # fmt: skip
        assert (word.headers["content-type"], word.headers["server"]) == ("text/plain", "gunicorn")
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for path in ("health", "data", "symbol_data", "log", ""):
            answer = page.request.fetch(f"{site.url}/market_monitor/{path}", method=method, max_redirects=0)
            assert answer.status in (400, 405), (method, path)


def test_a_viewer_sees_it_in_the_menu_and_may_not_trigger(page: Page, site: Site) -> None:
    site.log_in(page, site.viewer)
    page.goto(f"{site.url}/home")
    page.click(".navbar a:has-text('Market Monitor')")
    expect(page.locator("#mm-content")).to_be_visible()
    # Read-only: there is nothing to send.
    assert page.request.post(f"{site.url}/market_monitor/data").status in (400, 405)
    page.goto(f"{site.url}/dags/{COLLECTION}/trigger")
    expect(page.locator("#trigger_form")).to_have_count(0)


def test_an_empty_database_says_what_to_do_and_a_first_run_that_it_is_under_way(
    page: Page, admin_page: Page, site: Site
) -> None:
    site.log_in(page, site.viewer)
    open_monitor(page, site)

    expect(page.locator("#mm-message")).to_have_attribute("data-state", "empty")
    expect(page.locator("#mm-message")).to_contain_text(
        "trigger the DAG Complete Data + Features Pipeline to load the first bars"
    )
    # Triggered, and no symbol has begun.
    site.log_in(admin_page, site.admin)
    runs = f"{site.url}/api/v1/dags/{LOAD}/dagRuns"
    made = admin_page.request.post(runs, data={"dag_run_id": "first", "conf": {}})
    assert made.status == 200
    try:
        open_monitor(page, site)
        expect(page.locator("#mm-message")).to_have_attribute("data-state", "first_run")
        assert "queued" in cells(page, "mm-pipelines", "Complete Data + Features Pipeline")[2]
    finally:
        assert admin_page.request.delete(f"{runs}/first").status == 204
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
        expect(page.locator("#market-monitor.mm-old")).to_have_count(1)
        expect(page.locator("#mm-as-of")).to_have_text(seen)
        answer = page.request.get(f"{site.url}/market_monitor/data")
        assert (answer.status, answer.json()["state"]) == (503, "down")
        # Nothing that helps a stranger.
        assert "127.0.0.1" not in answer.text()
        assert str(site.market.port) not in answer.text()
        assert polled(page, site, lambda status, word: word == "down") == (503, "down")
    finally:
        site.market.start()
    with psycopg.connect(site.market_url, autocommit=True) as connection:
        # The run has been cleared, and its failed symbol is served.
        connection.execute(
            "INSERT INTO processing_history (dag_id, run_id, step, symbol, try, correlation_id, window_end,"
            " started_at, finished_at, status, rows_written)"
            " VALUES (%s, %s, 'collect_symbol', 'TSLA', 2, 'c', %s, %s, %s, 'ok', 3600)",
            (COLLECTION, RUN_ID, TICK, TICK + timedelta(hours=1), TICK + timedelta(hours=1)),
        )
    give_up = time.monotonic() + 60
    while box.get_attribute("data-state") == "down" and time.monotonic() < give_up:
        page.clock.run_for(31_000)
        page.wait_for_load_state("networkidle")
    expect(box).to_have_attribute("data-state", "attention")
    page.clock.run_for(62_000)
    expect(page.locator("#mm-pipelines tbody")).to_contain_text("5,021")
    expect(page.locator("#market-monitor.mm-old")).to_have_count(0)


def test_after_an_outage_the_first_good_answer_has_all_parts_asked_at_once(
    page: Page, site: Site, planted: list[datetime]
) -> None:
    page.clock.install()
    site.log_in(page, site.viewer)
    open_monitor(page, site)
    page.clock.pause_at(datetime.now(UTC) + timedelta(seconds=5))
    page.route("**/market_monitor/data*", lambda route: route.abort())
    page.clock.run_for(61_000)
    box = page.locator("#mm-message")
    expect(box).to_have_attribute("data-state", "unreachable")
    page.unroute("**/market_monitor/data*")
    page.clock.run_for(31_000)  # the status' turn; freshness comes half a minute later
    expect(box).to_have_attribute("data-state", "attention")


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
