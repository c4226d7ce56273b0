from __future__ import annotations

from pathlib import Path

import pytest

from include.mltrading.configuration.settings import Settings
from include.mltrading.configuration.symbols import batches, parse_symbol, parse_symbols, read_symbols_file
from include.mltrading.errors import UsageError


def test_the_shipped_universe_is_a_hundred_symbols() -> None:
    assert len(read_symbols_file(Settings().symbols_file)) == 100


@pytest.mark.parametrize(
    ("text", "symbol"), [("AAPL", "AAPL"), ("brk.b", "BRK-B"), (" BF-B ", "BF-B"), ("T", "T")]
)
def test_a_symbol_is_brought_into_yahoos_spelling(text: str, symbol: str) -> None:
    assert parse_symbol(text) == symbol


@pytest.mark.parametrize(
    "text",
    [
        "",
        "'; DROP TABLE market_data",
        "$(touch x)",
        "-rf",
        "A\nB",
        "A\n",
        "ABCDEFGHIJK",
        "1AB",
        "A--B",
        "AÄ",
        "ß",
        "ﬁ",
    ],
)
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_symbol(text)
    assert repr(text) in str(refused.value)
    assert "ticker symbol" in str(refused.value)


def test_repeated_symbols_count_once_and_keep_their_order() -> None:
    assert parse_symbols(["MSFT", "AAPL", "msft", "BRK.B", "BRK-B"]) == ["MSFT", "AAPL", "BRK-B"]


def test_comments_and_blank_lines_are_no_symbols(tmp_path: Path) -> None:
    path = tmp_path / "symbols.txt"
    path.write_text("# large\n\nAAPL  # Apple\n  brk.b\n")
    assert read_symbols_file(path) == ["AAPL", "BRK-B"]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("AAPL\n$X\n", ["line 2", "'$X'"]),
        ("AAPL\n\nMSFT\naapl\n", ["line 4", "AAPL", "line 1"]),
        ("# nothing\n", ["holds no symbol"]),
        ("", ["holds no symbol"]),
    ],
)
def test_a_bad_symbols_file_is_refused_with_its_line(tmp_path: Path, content: str, names: list[str]) -> None:
    path = tmp_path / "symbols.txt"
    path.write_text(content)
    with pytest.raises(UsageError) as refused:
        read_symbols_file(path)
    for name in [str(path), *names]:
        assert name in str(refused.value)


def test_an_unreadable_symbols_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no-such\.txt.*MLTRADING_SYMBOLS_FILE"):
        read_symbols_file(tmp_path / "no-such.txt")
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_symbols_file(binary)


def test_the_mark_that_windows_editors_put_first_is_no_part_of_a_symbol(tmp_path: Path) -> None:
    path = tmp_path / "symbols.txt"
    path.write_bytes(b"\xef\xbb\xbfAAPL\r\nMSFT\r\n")
    assert read_symbols_file(path) == ["AAPL", "MSFT"]


def test_batches_hold_every_symbol_once() -> None:
    assert batches(["A", "B", "C"], 2) == [["A", "B"], ["C"]]
    assert batches(["A"], 5) == [["A"]]
