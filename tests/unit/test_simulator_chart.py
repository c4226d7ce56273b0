"""The simulator's chart documents: windows read, bars written, refusals worded as Yahoo words them."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from include.market_simulator import bars
from include.market_simulator.chart import Window, chart_reply, read_window
from include.market_simulator.messages import Reply, Series

NOW = datetime(2025, 11, 28, 15, 45, tzinfo=UTC)


def seconds(moment: datetime) -> str:
    return str(int(moment.timestamp()))


def chart(window: Window, **events: Any) -> dict[str, Any]:
    found = bars(7, "AAPL", window.start, window.end, now=NOW)
    reply = chart_reply(Series("AAPL", window.start, window.end, NOW, tuple(found), **events))
    return json.loads(reply.body)["chart"]["result"][0]


def read(**query: str) -> Window:
    window = read_window(query, NOW)
    assert isinstance(window, Window)
    return window


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ({"period1": seconds(NOW - timedelta(days=731)), "interval": "60m"}, 422, "within the last 730 days"),
        (
            {"period1": seconds(NOW), "period2": "1", "interval": "60m"},
            400,
            "start date cannot be after end date",
        ),
        ({"period1": "x", "interval": "60m"}, 400, "Invalid input"),
        ({"range": "3w", "interval": "60m"}, 400, "range=3w is not supported"),
        ({"range": "1d", "interval": "7m"}, 422, "interval=7m is not supported"),
    ],
)
def test_a_window_yahoo_would_not_serve_is_refused_in_its_words(
    query: dict[str, str], status: int, words: str
) -> None:
    reply = read_window(query, NOW)
    assert isinstance(reply, Reply)
    assert reply.status == status
    assert words in json.loads(reply.body)["chart"]["error"]["description"]


def test_a_window_by_instants_gives_the_bars_that_start_in_it() -> None:
    start = datetime(2025, 11, 24, 15, 30, tzinfo=UTC)
    result = chart(read(period1=seconds(start), period2=seconds(start + timedelta(hours=2)), interval="60m"))
    wanted = bars(7, "AAPL", start, start + timedelta(hours=2))
    assert result["timestamp"] == [int(bar.timestamp.timestamp()) for bar in wanted]
    assert len(wanted) == 2
    quote = result["indicators"]["quote"][0]
    for name in ("open", "high", "low", "close", "volume"):
        assert quote[name] == [getattr(bar, name) for bar in wanted]
    assert result["meta"]["dataGranularity"] == "1h"


@pytest.mark.parametrize(("name", "days"), [("1d", 1), ("5d", 5)])
def test_a_range_ends_at_the_clock(name: str, days: int) -> None:
    result = chart(read(range=name, interval="60m"))
    assert len(result["meta"]["tradingPeriods"]) == days
    assert result["timestamp"][-1] == int(datetime(2025, 11, 28, 15, 30, tzinfo=UTC).timestamp())


def test_trading_periods_know_the_half_day() -> None:
    period = chart(read(range="1d", interval="60m"))["meta"]["tradingPeriods"][-1][0]
    assert period["end"] - period["start"] == 3.5 * 3600
    assert (period["timezone"], period["gmtoffset"]) == ("EST", -18000)


def test_an_empty_window_has_yahoos_empty_shape() -> None:
    start = datetime(2025, 11, 22, tzinfo=UTC)
    result = chart(read(period1=seconds(start), period2=seconds(start + timedelta(days=1)), interval="60m"))
    assert "timestamp" not in result
    assert result["indicators"] == {"quote": [{}]}
    assert result["meta"]["exchangeTimezoneName"] == "America/New_York"


@pytest.mark.parametrize(("ratio", "numerator", "denominator"), [(1.5, 3, 2), (4.0, 4, 1), (0.1, 1, 10)])
def test_events_hang_on_the_open_of_their_session(ratio: float, numerator: int, denominator: int) -> None:
    day = date(2025, 11, 26)
    window = read(period1=seconds(NOW - timedelta(days=4)), interval="60m")
    opened = int(datetime(2025, 11, 26, 14, 30, tzinfo=UTC).timestamp())
    events = chart(window, splits=((day, ratio),), dividends=((day, 0.26), (date(2025, 11, 27), 1.0)))[
        "events"
    ]
    assert events["dividends"] == {str(opened): {"amount": 0.26, "date": opened}}
    assert events["splits"][str(opened)] == {
        "date": opened,
        "numerator": numerator,
        "denominator": denominator,
        "splitRatio": f"{numerator}:{denominator}",
    }
