"""The SQL statements of sql/, by folder and file name."""

from __future__ import annotations

from functools import cache
from typing import LiteralString

from include.mltrading.configuration.settings import PROJECT_ROOT

SQL_FOLDER = PROJECT_ROOT / "sql"


@cache
def query(name: str) -> LiteralString:
    """The text of sql/<name>.sql, such as "bars/upsert_bars"; it takes its values as named parameters."""
    # The files are part of the program, like its literals.
    return (SQL_FOLDER / f"{name}.sql").read_text(encoding="utf-8")
