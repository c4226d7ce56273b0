"""What a chart document says: about itself, in bars, in events; and that bad events never cost the bars."""

from __future__ import annotations

import json
import logging
from datetime import UTC, date, datetime
from math import isnan, nan
from typing import Any

import pytest

from include.mltrading.market.yahoo import Dividend, Split
from include.mltrading.market.yahoo_chart import UNREADABLE, read_chart

OPEN = int(datetime(2026, 3, 23, 13, 30, tzinfo=UTC).timestamp())
META = {
    "symbol": "BRK-B", "currency": "USD", "instrumentType": "EQUITY", "dataGranularity": "1h",
    "exchangeTimezoneName": "America/New_York", "firstTradeDate": 831_562_200,
}  # fmt: skip


def document(meta: dict[str, Any] | None = None, events: Any = None, **columns: Any) -> bytes:
    """Two bars, the second without a value; columns and stamps as given."""
    quote = {name: [10.0, None] for name in ("open", "high", "low", "close", "volume")}
    result = {
        "meta": META | (meta or {}),
        "timestamp": columns.pop("timestamp", [OPEN, OPEN + 3600]),
        "indicators": {"quote": [quote | columns]},
        "events": events,
    }
    return json.dumps({"chart": {"result": [result], "error": None}}).encode()


def test_bars_come_as_they_are_with_nan_for_null() -> None:
    chart = read_chart(document(), "BRK-B")
    assert chart.misfit is chart.reason is None
    assert chart.bars[0] == (datetime.fromtimestamp(OPEN, UTC), 10, 10, 10, 10, 10)
    assert all(isnan(value) for value in chart.bars[1][1:])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("symbol", "ZZZZ"), ("currency", "GBp"), ("currency", "CNY"), ("instrumentType", "CRYPTOCURRENCY"),
        ("instrumentType", "FUTURE"), ("instrumentType", "MUTUALFUND"), ("instrumentType", "INDEX"),
        ("exchangeTimezoneName", "Europe/London"), ("dataGranularity", "1d"), ("dataGranularity", "30m"),
        ("symbol", ["BRK-B"]), ("currency", 7),
    ],
)  # fmt: skip
def test_what_the_reply_says_that_it_is_must_fit(name: str, value: object) -> None:
    misfit = read_chart(document({name: value}), "BRK-B").misfit
    assert misfit is not None
    assert name in misfit
    assert str(value) in misfit


@pytest.mark.parametrize("meta", [{"instrumentType": "ETF"}, {"dataGranularity": "60m"}])
def test_etfs_and_both_names_of_the_hour_fit(meta: dict[str, str]) -> None:
    assert read_chart(document(meta), "BRK-B").misfit is None


@pytest.mark.parametrize(
    "name", ["symbol", "currency", "instrumentType", "exchangeTimezoneName", "dataGranularity"]
)
def test_a_reply_that_does_not_say_what_it_is_cannot_be_read(name: str) -> None:
    with pytest.raises(ValueError, match=f"has no {name}"):
        read_chart(document({name: None}), "BRK-B")


@pytest.mark.parametrize(
    ("told", "expected"),
    [(831_562_200, datetime(1996, 5, 8, 13, 30, tzinfo=UTC)), (None, None), ("1996", None), (1e300, None)],
)
def test_the_first_trade_is_read_where_it_is_told(told: object, expected: datetime | None) -> None:
    assert read_chart(document({"firstTradeDate": told}), "BRK-B").first_trade == expected


@pytest.mark.parametrize(
    "body",
    [
        document(volume=None), document(timestamp=[OPEN, None]), document(timestamp=[OPEN]),
        document(timestamp=[OPEN, 1e300]), document(close=["10.0", 10.0]), document(open=[10**400, 1]),
        document(high=[True, 1.0]), b"[" * 100_000, b"\xff\xfe\x00", b"null", b'{"chart": []}',
        b'{"chart": {}}', b'{"chart": {"result": null, "error": null}}',
    ],
)  # fmt: skip
def test_what_cannot_be_read_raises_what_the_adapter_catches(body: bytes) -> None:
    with pytest.raises(UNREADABLE):
        read_chart(body, "BRK-B")


def test_events_are_read_by_day_in_new_york() -> None:
    split = {"date": OPEN, "numerator": 4, "denominator": 1}
    cash = {"date": OPEN, "amount": 0.25, "currency": "USD"}
    events = {
        "splits": {"a": split, "b": split},  # told twice
        "dividends": {"a": cash, "b": {**cash, "amount": 1.0, "currency": ""}},
        "capitalGains": {"a": {"date": OPEN, "amount": 1.5, "currency": "USD"}},
    }
    chart = read_chart(document(events=events), "BRK-B")
    assert chart.splits == (Split(date(2026, 3, 23), 4.0),)
    assert chart.dividends == (Dividend(date(2026, 3, 23), 1.25),)


BAD_SPLITS = [
    {"date": OPEN, "numerator": 0, "denominator": 1}, {"date": OPEN, "numerator": 1, "denominator": 0},
    {"date": OPEN, "numerator": -2, "denominator": 1}, {"date": OPEN, "numerator": nan, "denominator": 1},
    {"date": OPEN, "numerator": "4", "denominator": 1}, {"date": OPEN, "numerator": None, "denominator": 1},
    {"date": OPEN, "numerator": 1e308, "denominator": 1e-308},
    {"date": OPEN, "numerator": 1e200, "denominator": 1},
    {"date": OPEN, "numerator": 1, "denominator": 1e200},
    {"numerator": 4, "denominator": 1},
    {"date": None, "numerator": 4, "denominator": 1}, {"date": 1e300, "numerator": 4, "denominator": 1},
    {"date": OPEN}, "4:1", [4, 1], None,
]  # fmt: skip
BAD_DIVIDENDS = [
    {"date": OPEN, "amount": "0.25"}, {"date": OPEN, "amount": None}, {"date": OPEN, "amount": -1},
    {"date": OPEN, "amount": 1.5e308},
    {"date": OPEN, "amount": float("inf")}, {"amount": 0.25}, {"date": OPEN, "amount": 1, "currency": "CAD"},
]  # fmt: skip


@pytest.mark.parametrize(
    "events",
    [
        *({"splits": {"a": event}} for event in BAD_SPLITS),
        *({"dividends": {"a": event}} for event in BAD_DIVIDENDS),
        {"splits": [{"date": OPEN}]}, {"dividends": "none"}, [1], "events", 7,
    ],
)  # fmt: skip
def test_an_event_that_cannot_be_read_costs_the_event_and_never_the_bars(
    events: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        chart = read_chart(document(events=events), "BRK-B")
    assert len(chart.bars) == 2
    assert chart.splits == chart.dividends == ()
    assert chart.events_lost
    assert "BRK-B" in caplog.text
    assert "left out" in caplog.text


def test_a_good_event_stays_beside_a_bad_one() -> None:
    events = {"splits": {"a": "4:1", "b": {"date": OPEN, "numerator": 1, "denominator": 8}}}
    assert read_chart(document(events=events), "BRK-B").splits == (Split(date(2026, 3, 23), 0.125),)
    assert not read_chart(document(events={"splits": {"b": events["splits"]["b"]}}), "BRK-B").events_lost
