"""The simulator's faults: who is hit and how often, what changes, what is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from math import isnan
from typing import Any

import pytest

from include.market_simulator import MarketSimulator, bars
from include.market_simulator.faults import ControlError
from include.market_simulator.messages import Reply, Series
from include.market_simulator.registry import FaultRegistry, change_reply, change_series

START = datetime(2025, 11, 24, tzinfo=UTC)
NOW = datetime(2025, 11, 26, 16, 5, 7, 250_000, tzinfo=UTC)


def series() -> Series:
    return Series("AAPL", START, NOW, NOW, tuple(bars(7, "AAPL", START, NOW, now=NOW)))


def registry(kind: str, symbol: str | None = None, count: int | None = None, **options: Any) -> FaultRegistry:
    faults = FaultRegistry()
    faults.add(kind, symbol=symbol, count=count, **options)
    return faults


def changed(kind: str, **options: Any) -> Series:
    return change_series(series(), registry(kind, **options).take("chart", "AAPL"))


def test_a_fault_hits_its_symbol_and_its_kind_of_request_only() -> None:
    faults = registry("empty", symbol="aapl")
    assert faults.take("chart", "MSFT") == []
    assert faults.take("crumb", None) == []
    assert len(faults.take("chart", "AAPL")) == 1


def test_a_counted_fault_is_gone_after_its_count() -> None:
    faults = registry("empty", count=2)
    assert [len(faults.take("chart", symbol)) for symbol in ("AAPL", "MSFT", "AAPL")] == [1, 1, 0]


def test_an_uncounted_fault_stays_until_cleared() -> None:
    faults = registry("reset")
    assert all(faults.take("chart", "AAPL") for _ in range(5))
    faults.clear()
    assert faults.take("chart", "AAPL") == []


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("earthquake", {}, "no fault 'earthquake': choose from empty"),
        ("status", {"code": 429}, "code is 429"),
        ("status", {"status": 200}, "status is 200"),
        ("split", {"ex_date": "today", "ratio": 4}, "ex_date is 'today'"),
        ("gaps", {"every": 0}, "every is 0"),
        ("times", {"start": "noon"}, "start is 'noon'"),
        ("revision", {}, "start"),
        ("nan_rows", {"fields": "colour"}, "fields has colour"),
        ("empty", {"count": 0}, "count is 0"),
        ("empty", {"requests": "quote"}, "requests is 'quote'"),
    ],
)
def test_a_wrong_fault_is_refused_in_one_line(kind: str, options: dict[str, Any], words: str) -> None:
    with MarketSimulator() as simulator:
        with pytest.raises(ControlError, match=words) as caught:
            simulator.fault(kind, **options)
        assert "\n" not in str(caught.value)
        assert simulator.answer("/v8/finance/chart/AAPL?range=5d&interval=60m").status == 200


def test_empty_leaves_no_bar() -> None:
    assert changed("empty").bars == ()


def test_a_live_row_repeats_the_last_price_off_the_grid() -> None:
    *rest, last = changed("live_row").bars
    assert tuple(rest) == series().bars
    assert last == (NOW.replace(microsecond=0), *[rest[-1].close] * 4, 0.0)


def test_a_live_row_can_stand_in_the_running_bars_place() -> None:
    *before, running = series().bars
    assert changed("live_row", instead=True).bars == (
        *before,
        running._replace(timestamp=NOW.replace(microsecond=0)),
    )


def test_a_live_row_comes_only_while_the_exchange_is_open() -> None:
    night = START + timedelta(days=1, hours=2)
    closed = Series("AAPL", START, night, night, tuple(bars(7, "AAPL", START, night, now=night)))
    assert change_series(closed, registry("live_row").take("chart", "AAPL")) == closed


def test_nan_rows_lack_the_named_values_at_each_nth_bar() -> None:
    after = changed("nan_rows", fields="close volume", every=3)
    for number, (old, new) in enumerate(zip(series().bars, after.bars, strict=True), start=1):
        if number % 3:
            assert new == old
        else:
            assert new[:4] == old[:4]
            assert isnan(new.close)
            assert isnan(new.volume)


def test_a_restated_split_puts_all_bars_on_the_new_basis() -> None:
    before, after = series(), changed("split", ex_date="2025-11-26", ratio=4)
    assert after.splits == ((date(2025, 11, 26), 4.0),)
    for old, new in zip(before.bars, after.bars, strict=True):
        assert new.close == pytest.approx(old.close / 4, rel=1e-6)
        assert new.volume == 4 * old.volume


def test_a_split_that_is_not_restated_leaves_a_jump_at_its_ex_date() -> None:
    before, after = series(), changed("split", ex_date="2025-11-26", ratio=0.1, restated=False)
    assert after.splits == ((date(2025, 11, 26), 0.1),)
    for old, new in zip(before.bars, after.bars, strict=True):
        factor = 1 if old.timestamp.date() < date(2025, 11, 26) else 10
        assert new.close == pytest.approx(old.close * factor, rel=1e-6)


def test_a_split_may_be_restated_early_and_never_announced() -> None:
    early = changed("split", ex_date="2025-11-28", ratio=4, early=True)
    assert early.splits == ()
    assert early.bars[0].close == pytest.approx(series().bars[0].close / 4, rel=1e-6)
    assert changed("split", ex_date="2025-11-26", ratio=4, announced=False).splits == ()


def test_bars_go_missing_come_twice_or_in_disorder() -> None:
    truth = series().bars
    assert 0 < len(changed("gaps", every=5).bars) < len(truth)
    assert set(changed("gaps", every=5).bars) < set(truth)
    days = {bar.timestamp.day for bar in changed("missing_day", day="2025-11-25").bars}
    assert days == {24, 26}
    twice = changed("duplicates", every=1, factor=1.5).bars
    assert twice[::2] == truth
    assert twice[1].close == pytest.approx(1.5 * truth[0].close, rel=1e-6)
    assert changed("disorder").bars == truth[::-1]


def test_bars_come_off_the_grid_upside_down_or_in_another_unit() -> None:
    truth = series().bars
    off = changed("off_grid", every=1, seconds=5).bars
    assert off[::2] == truth
    assert off[1].timestamp - truth[0].timestamp == timedelta(seconds=5)
    assert all(bar.high <= bar.low for bar in changed("high_below_low", every=1).bars)
    assert changed("times").bars[0].close == pytest.approx(100 * truth[0].close, rel=1e-6)
    start = truth[3].timestamp.isoformat()
    hit = changed("times", factor=10, start=start, hours=2).bars
    assert [new != old for new, old in zip(hit, truth, strict=True)].count(True) == 2
    revised = changed("revision", start=start, factor=1.02).bars
    assert [new != old for new, old in zip(revised, truth, strict=True)].index(True) == 3
    assert changed("wrong_zone", hours=-5).bars[0].timestamp == truth[0].timestamp - timedelta(hours=5)


def test_a_split_to_come_changes_nothing() -> None:
    assert changed("split", ex_date="2025-11-28", ratio=4) == series()


@pytest.mark.parametrize(
    ("kind", "options", "status", "body"),
    [
        ("status", {"status": 429, "retry_after": 30}, 429, b"Too Many Requests\r\n"),
        ("status", {"status": 503}, 503, b"HTTP 503\r\n"),
        ("html", {}, 200, b"<!DOCTYPE html>"),
        ("cut", {}, 200, b'{"chart'),
    ],
)
def test_reply_faults_change_status_and_body(
    kind: str, options: dict[str, Any], status: int, body: bytes
) -> None:
    reply = change_reply(Reply(200, b'{"chart":true}'), registry(kind, **options).take("chart", "AAPL"))
    assert reply.status == status
    assert reply.body.startswith(body)
    assert reply.headers == ({"Retry-After": "30"} if "retry_after" in options else {})


def test_slow_and_reset_are_left_to_the_server() -> None:
    faults = registry("slow", seconds=2)
    faults.add("reset", requests="any")
    reply = change_reply(Reply(200, b"{}"), faults.take("chart", "AAPL"))
    assert (reply.delay, reply.reset, reply.body) == (2.0, True, b"{}")
