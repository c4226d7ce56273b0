"""One rate limit, one queue, one session with the vendor, over all processes; and what a refusal does."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.market_simulator import MarketSimulator
from include.mltrading.cli.task import Task, run_task
from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import PostponedError
from include.mltrading.market.calendar import NEW_YORK
from include.mltrading.market.yahoo import VendorSession
from include.mltrading.pipeline.batch import run_batch, worst_exit_code
from include.mltrading.pipeline.child import Limits
from include.mltrading.pipeline.collect import Collection
from include.mltrading.pipeline.run import Run
from include.mltrading.pipeline.runner import Outcome, run_isolated
from include.mltrading.pipeline.steps import COLLECT
from include.mltrading.pipeline.window import Window
from include.mltrading.store import request_clock
from include.mltrading.store.connection import Connection, connect
from include.mltrading.store.request_clock import ON_DEMAND, SCHEDULED, wait_for_slot
from include.mltrading.store.vendor_session import SharedSession

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

TICK = datetime(2026, 1, 21, 11, tzinfo=NEW_YORK).astimezone(UTC)
LIMITS = Limits(60, 30, 60, 448)

Collect = Callable[..., list[Outcome]]


@pytest.fixture
def connection(settings: Settings) -> Iterator[Connection]:
    with connect(settings) as opened:
        yield opened


@pytest.fixture
def collect(settings: Settings, simulator: MarketSimulator) -> Collect:
    def call(*symbols: str, concurrency: int = 1, seconds: float = 300, try_number: int = 1) -> list[Outcome]:
        run = Run("dag", "run", try_number, TICK)
        pointed = dataclasses.replace(settings, yahoo_url=simulator.url, yahoo_requests_per_second=100.0)
        work = Collection(
            pointed, run, Window(TICK, sessions=3), timedelta(),
            ends_at=time.monotonic() + seconds, retry_seconds=0.05,
        )  # fmt: skip
        return run_batch(pointed, run, COLLECT, symbols, work, limits=LIMITS, concurrency=concurrency)

    return call


def statuses(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.symbol: outcome.status for outcome in outcomes}


def seconds_paused(connection: Connection) -> float:
    row = connection.execute(
        "SELECT extract(epoch FROM not_before - clock_timestamp())::float8 FROM request_clock"
    ).fetchone()
    assert row is not None
    return float(row[0])


def in_turn(settings: Settings, rate: float, priority: int = ON_DEMAND) -> datetime:
    """Wait for a slot over a connection of its own; returns when it came."""
    with connect(settings) as connection:
        wait_for_slot(connection, "yahoo", rate, priority=priority)
    return datetime.now(UTC)


def recorded(connection: Connection, event: str, values: str) -> None:
    """Have the server note the values of each such event in the table `seen`, in the order of events.

    What the queue promises is an order and a distance of slots; when a waiting thread wakes up is up to the
    machine.
    """
    note = f"INSERT INTO seen (note) VALUES (jsonb_build_array({values}))"  # noqa: S608
    connection.execute(
        "CREATE TABLE seen (n integer GENERATED ALWAYS AS IDENTITY, note jsonb);"
        f"CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {note}; RETURN NULL; END $$;"
        f"CREATE TRIGGER note AFTER {event} FOR EACH ROW EXECUTE FUNCTION note()"
    )


def seen(connection: Connection) -> list[Any]:
    return [note for (note,) in connection.execute("SELECT note FROM seen ORDER BY n").fetchall()]


def test_many_waiting_at_once_keep_to_the_rate(settings: Settings, connection: Connection) -> None:
    recorded(connection, "UPDATE OF next_slot ON request_clock", "NEW.next_slot - interval '0.05 s'")
    with ThreadPoolExecutor(8) as pool:
        woken = sorted(pool.map(lambda _: in_turn(settings, 20.0), range(16)))
    slots = [datetime.fromisoformat(slot) for [slot] in seen(connection)]
    assert len(slots) == 16
    assert min(later - earlier for earlier, later in pairwise(slots)) >= timedelta(seconds=0.05)
    early = [slot - moment for slot, moment in zip(slots, woken, strict=True)]
    assert max(early) < timedelta(milliseconds=1)


def test_scheduled_work_goes_first_and_equals_in_the_order_in_which_they_came(
    settings: Settings, connection: Connection
) -> None:
    def in_line(number: int) -> None:
        while connection.execute("SELECT count(*) FROM request_queue").fetchone() != (number,):
            time.sleep(0.01)

    recorded(connection, "DELETE ON request_queue", "OLD.priority, OLD.since")
    request_clock.pause(connection, "yahoo", 4.0)
    with ThreadPoolExecutor(4) as pool:
        for number, priority in enumerate((ON_DEMAND, ON_DEMAND, ON_DEMAND, SCHEDULED), start=1):
            pool.submit(in_turn, settings, 20.0, priority)
            in_line(number)
        assert seconds_paused(connection) > 0  # all stood in line before the first could go
    served = seen(connection)
    assert [priority for priority, _ in served] == [SCHEDULED, ON_DEMAND, ON_DEMAND, ON_DEMAND]
    assert served == sorted(served)


def test_who_died_in_the_queue_is_passed_over(connection: Connection) -> None:
    begun = time.monotonic()
    connection.execute(
        "INSERT INTO request_queue (waiter, vendor, priority, since, alive_until) VALUES "
        "(gen_random_uuid(), 'yahoo', 0, now() - interval '1 hour', clock_timestamp() + interval '0.4 s')"
    )
    wait_for_slot(connection, "yahoo", 100.0)
    assert time.monotonic() - begun > 0.39
    assert connection.execute("SELECT count(*) FROM request_queue WHERE priority > 0").fetchone() == (0,)


def test_an_emptied_clock_is_made_anew(connection: Connection) -> None:
    for _ in range(2):
        connection.execute("DELETE FROM request_clock")
        wait_for_slot(connection, "yahoo", 100.0)
    assert connection.execute("SELECT count(*) FROM request_clock").fetchone() == (1,)


def test_a_refusal_makes_everybody_wait_as_long_as_the_vendor_asks(connection: Connection) -> None:
    begun = time.monotonic()
    assert request_clock.pause(connection, "yahoo", 0.0) == pytest.approx(1, abs=0.1)
    wait_for_slot(connection, "yahoo", 100.0)
    assert time.monotonic() - begun > 0.99


def test_pauses_without_a_wish_of_the_vendors_grow_until_an_answer_is_good(connection: Connection) -> None:
    def over() -> None:
        connection.execute("UPDATE request_clock SET not_before = clock_timestamp()")

    def paused() -> float:
        return request_clock.pause(connection, "yahoo", None)

    assert paused() == pytest.approx(60, abs=1)
    assert paused() == pytest.approx(60, abs=1)  # a second answer to the same burst
    over()
    assert paused() == pytest.approx(120, abs=1)
    for _ in range(8):
        over()
        longest = paused()
    assert longest == pytest.approx(3600, abs=1)
    over()
    request_clock.welcome(connection, "yahoo")
    assert paused() == pytest.approx(60, abs=1)


def test_no_wish_of_the_vendors_is_cut_short_by_a_later_refusal(connection: Connection) -> None:
    request_clock.pause(connection, "yahoo", 500.0)
    request_clock.pause(connection, "yahoo", 5.0)
    request_clock.pause(connection, "yahoo", None)
    assert seconds_paused(connection) == pytest.approx(500, abs=20)


@pytest.mark.parametrize("asked", [1e300, float("inf")])
def test_an_absurd_wish_is_a_day(connection: Connection, asked: float) -> None:
    assert request_clock.pause(connection, "yahoo", asked) == pytest.approx(86_400, abs=1)


def test_a_wait_beyond_the_end_of_the_task_is_not_begun(connection: Connection) -> None:
    request_clock.pause(connection, "yahoo", 1000.0)
    begun = time.monotonic()
    with pytest.raises(PostponedError, match=r"asked again in (9\d\d|1000) s.* (2\d\d|300) s left"):
        wait_for_slot(connection, "yahoo", 1.0, deadline=time.monotonic() + 300)
    assert time.monotonic() - begun < 300
    assert connection.execute("SELECT count(*) FROM request_queue").fetchone() == (0,)


def test_after_a_429_every_worker_waits_and_nothing_is_lost(
    collect: Collect, simulator: MarketSimulator, connection: Connection
) -> None:
    collect("XOM")
    simulator.fault("status", status=429, retry_after=2.0, count=1)
    begun = time.monotonic()
    asked = ("AAPL", "MSFT", "IBM")
    assert statuses(collect(*asked, concurrency=2)) == dict.fromkeys(asked, "ok")
    assert time.monotonic() - begun > 1.8
    assert simulator.statistics()["statuses"]["429"] == 1


def test_a_pause_that_outlasts_the_task_ends_it_with_75_and_without_a_request(
    collect: Collect, simulator: MarketSimulator
) -> None:
    collect("AAPL")
    simulator.fault("status", status=429, retry_after=1000.0, symbol="MSFT")
    before = simulator.statistics()["total"]
    outcomes = collect("MSFT", "IBM", "KO")
    assert statuses(outcomes) == {"MSFT": "error", "IBM": "error", "KO": "error"}
    assert worst_exit_code(outcomes) == 75
    assert "may be asked again in" in (outcomes[1].error or "")
    assert simulator.statistics()["total"] == before + 1


def test_exit_code_75_tells_a_wait_from_a_failure() -> None:
    def ended(*codes: int) -> int:
        return worst_exit_code([Outcome("A", "error", 0, 0, 0, 0, "", code) for code in codes])

    assert [ended(), ended(0), ended(75, 0), ended(75, 2), ended(75, 1), ended(2, 2), ended(1, 2)] == [
        0, 0, 75, 75, 1, 2, 1,
    ]  # fmt: skip


def test_a_short_failure_is_tried_again_within_the_task(collect: Collect, simulator: MarketSimulator) -> None:
    collect("AAPL")
    for fault, options in (("status", {"status": 500}), ("reset", {})):
        before = simulator.statistics()["kinds"]["chart"]
        simulator.fault(fault, count=2, **options)  # type: ignore[arg-type]
        assert statuses(collect("AAPL", try_number=2)) == {"AAPL": "ok"}
        assert simulator.statistics()["kinds"]["chart"] == before + 3


def test_denials_of_one_symbol_after_the_other_pause_all_and_an_answer_ends_the_count(
    collect: Collect, simulator: MarketSimulator, connection: Connection
) -> None:
    simulator.fault("status", status=403)
    assert worst_exit_code(collect("MSFT", "IBM")) == 1
    simulator.clear_faults()
    collect("AAPL")
    simulator.fault("status", status=401)
    outcomes = collect("MSFT", "IBM", "KO", try_number=2)
    assert [outcome.exit_code for outcome in outcomes] == [1, 1, 1]
    assert seconds_paused(connection) == pytest.approx(1200, abs=60)
    before = simulator.statistics()["total"]
    assert worst_exit_code(collect("GOOG", "XOM")) == 75
    assert simulator.statistics()["total"] == before


def test_one_wrong_404_for_a_symbol_with_recent_bars_is_asked_again(
    collect: Collect, simulator: MarketSimulator
) -> None:
    collect("AAPL")
    simulator.fault("status", status=404, count=1)
    assert statuses(collect("AAPL", try_number=2)) == {"AAPL": "ok"}
    simulator.fault("status", status=404)
    [outcome] = collect("AAPL", try_number=3)
    assert (outcome.exit_code, outcome.hopeless) == (1, False)
    assert "the next run asks again" in (outcome.error or "")


@pytest.mark.parametrize(("kind", "options"), [("status", {"status": 404}), ("html", {}), ("empty", {})])
def test_what_repetition_cannot_cure_is_asked_once(
    collect: Collect, simulator: MarketSimulator, kind: str, options: dict[str, Any]
) -> None:
    collect("AAPL")
    before = simulator.statistics()["total"]
    simulator.fault(kind, **options)
    assert statuses(collect("MSFT")) == {"MSFT": "error"}
    assert simulator.statistics()["total"] == before + 1


def test_one_session_serves_all_processes(collect: Collect, simulator: MarketSimulator) -> None:
    asked = ("AAPL", "MSFT", "IBM")
    assert set(statuses(collect(*asked, concurrency=3)).values()) == {"ok"}
    assert simulator.statistics()["kinds"] == {"cookie": 1, "crumb": 1, "chart": 3}
    collect(*asked, concurrency=2, try_number=2)
    assert simulator.statistics()["kinds"] == {"cookie": 1, "crumb": 1, "chart": 6}


def test_a_refused_session_is_renewed_by_one_process(
    collect: Collect, simulator: MarketSimulator, connection: Connection
) -> None:
    collect("AAPL")
    [first] = connection.execute("SELECT obtained_at FROM vendor_session").fetchall()
    simulator.fault("status", status=401, count=1)
    assert set(statuses(collect("MSFT", "IBM", "KO", try_number=2)).values()) == {"ok"}
    assert simulator.statistics()["kinds"] == {"cookie": 2, "crumb": 2, "chart": 5}
    [second] = connection.execute("SELECT obtained_at FROM vendor_session").fetchall()
    assert second > first


def test_a_server_that_refuses_every_session_fails_the_symbol_and_no_other(
    collect: Collect, simulator: MarketSimulator
) -> None:
    simulator.fault("status", status=401, symbol="MSFT")
    assert statuses(collect("AAPL", "MSFT", "IBM")) == {"AAPL": "ok", "MSFT": "error", "IBM": "ok"}


def test_a_crumb_that_is_not_given_is_not_asked_for_by_every_process(
    collect: Collect, simulator: MarketSimulator
) -> None:
    simulator.fault("status", requests="crumb", status=500)
    assert set(statuses(collect("AAPL", "MSFT", "IBM")).values()) == {"ok"}
    assert simulator.statistics()["kinds"]["crumb"] == 1
    assert simulator.statistics()["kinds"]["chart"] == 3


def test_who_is_killed_while_obtaining_a_session_holds_up_nobody(
    settings: Settings, connection: Connection
) -> None:
    def obtain(symbol: str, started: Callable[[], None]) -> int:
        with connect(settings) as own:
            started()
            assert SharedSession(own, "vendor").load() is None
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    [outcome] = run_isolated(["AAPL"], obtain, limits=LIMITS, concurrency=1)
    assert (outcome.status, "SIGKILL" in (outcome.error or "")) == ("crashed", True)
    # Far less than a holder may take that lives.
    assert SharedSession(connection, "vendor", time.monotonic() + 20).load() is None


@pytest.mark.parametrize("end", ["save", "fail to save", "abandon"])
def test_who_waits_for_a_session_goes_on_when_its_holder_is_done(
    settings: Settings, connection: Connection, end: str
) -> None:
    obtained = VendorSession(({"name": "A3", "value": "x"},), "\0" if end == "fail to save" else "crumb")
    with connect(settings) as own:
        holder, waiting = SharedSession(own, "vendor"), SharedSession(connection, "vendor", time.monotonic())
        assert holder.load() is None
        with pytest.raises(PostponedError, match="not yet obtained a session with vendor"):
            waiting.load()
        if end == "save":
            holder.save(obtained)
        elif end == "abandon":
            holder.abandon()
        else:
            with pytest.raises(psycopg.DataError):
                holder.save(obtained)
        found = waiting.load()
    assert (found.crumb if found else None) == ("crumb" if end == "save" else None)


def test_a_session_that_was_saved_while_the_lock_was_asked_for_is_not_obtained_again(
    settings: Settings, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(settings) as own:
        holder, other = SharedSession(own, "vendor"), SharedSession(connection, "vendor")
        assert holder.load() is None
        ask = other._lease

        def ask_late() -> bool:
            holder.save(VendorSession((), "crumb"))
            return ask()

        monkeypatch.setattr(other, "_lease", ask_late)
        found = other.load()
        assert found is not None
        assert found.crumb == "crumb"
        holder.discard(found)
        assert SharedSession(own, "vendor", time.monotonic()).load() is None


def test_a_session_keeps_its_secrets_out_of_texts() -> None:
    session = VendorSession(({"name": "A3", "value": "hush"},), "hush")
    assert "hush" not in f"{session} {session!r}"


def test_a_collection_task_asks_before_an_on_demand_one(
    settings: Settings, simulator: MarketSimulator
) -> None:
    """The priority that a task waits with, seen from the queue while the clock stands still."""
    pointed = dataclasses.replace(settings, yahoo_url=simulator.url)

    def priority(dag_id: str, params: dict[str, Any]) -> int:
        task = Task("collect_symbol", Run(dag_id, "run", 1, TICK), False, ["AAPL"], params)
        with connect(settings) as connection, ThreadPoolExecutor(1) as pool:
            connection.execute("DELETE FROM request_clock")
            request_clock.pause(connection, "yahoo", 2.0)
            ended = pool.submit(run_task, task, pointed)
            while not (row := connection.execute("SELECT priority FROM request_queue").fetchone()):
                time.sleep(0.02)
            connection.execute("UPDATE request_clock SET not_before = clock_timestamp()")
            assert ended.result() == 0
            return int(row[0])

    with pytest.MonkeyPatch.context() as patch:
        # The runner wants to hear signals, which only a main thread can.
        patch.setattr("include.mltrading.pipeline.runner.signal.signal", lambda *_: None)
        assert priority("yahoo-production-data-collection", {"data_period": "3d"}) == SCHEDULED
        assert priority("complete-data-and-features-ondemand", {"period": "1mo"}) == ON_DEMAND


def test_a_universe_that_does_not_fit_is_refused_with_both_remedies(cli: Any, tmp_path: Path) -> None:
    path = tmp_path / "symbols.txt"
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    names = [a + b for a in letters for b in letters]
    path.write_text("\n".join(names[:480]))
    assert cli("validate", MLTRADING_SYMBOLS_FILE=str(path)).code == 0
    path.write_text("\n".join(names[:481]))
    finished = cli("validate", MLTRADING_SYMBOLS_FILE=str(path))
    assert finished.code == 2
    for words in (
        "481 symbols", "largest universe that fits has 480 symbols",
        "MLTRADING_YAHOO_REQUESTS_PER_SECOND to 1.01", "expected_runtime_minutes", "to 9",
    ):  # fmt: skip
        assert words in finished.err
    faster = cli("validate", MLTRADING_SYMBOLS_FILE=str(path), MLTRADING_YAHOO_REQUESTS_PER_SECOND="1.01")
    assert faster.code == 0


def test_all_waits_leave_the_queue_empty(collect: Collect, database: str) -> None:
    collect("AAPL", "MSFT", concurrency=2)
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM request_queue").fetchone() == (0,)
