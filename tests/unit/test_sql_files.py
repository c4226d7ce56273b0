"""The statements of sql/ and the code that names them fit together; migrations are numbered."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from include.mltrading.configuration.settings import PROJECT_ROOT
from include.mltrading.errors import SchemaError
from include.mltrading.features.definitions import COLUMNS
from include.mltrading.store import migrations
from include.mltrading.store.queries import SQL_FOLDER, query

CODE = "".join(
    path.read_text()
    for folder in ("mltrading", "reference")
    for path in (PROJECT_ROOT / "include" / folder).rglob("*.py")
)
STATEMENTS = {
    str(path.relative_to(SQL_FOLDER).with_suffix(""))
    for path in SQL_FOLDER.glob("*/*.sql")
    if path.parent.name != "migrations"
}


def test_every_statement_that_the_code_names_is_there_and_none_lies_unused() -> None:
    named = set(re.findall(r"\b(?:query|_composed|_value)\([^)\"]*\"([\w/]+)\"", CODE))
    assert named <= STATEMENTS
    assert [name for name in sorted(STATEMENTS) if f'"{name}"' not in CODE] == []


@pytest.mark.parametrize("name", ["upsert_features", "copy_features", "select_features"])
def test_the_statements_of_the_features_name_every_column_equally_often(name: str) -> None:
    """As one that is left out of a comparison would never be mended."""
    words = re.findall(r"\w+", query(f"features/{name}"))
    counts = {column: words.count(column) for column in COLUMNS}
    usual = max(counts.values())
    assert {column for column, count in counts.items() if count != usual} == set()


def test_a_migration_with_a_wrong_name_or_unreadable_is_named(tmp_path: Path) -> None:
    (tmp_path / "first.sql").write_text("SELECT 1")
    (tmp_path / "0001_first.sql").write_bytes(b"-- caf\xe9")
    with pytest.raises(SchemaError) as caught:
        migrations.available(tmp_path)
    latin, name = str(caught.value).splitlines()
    assert latin.endswith("0001_first.sql: cannot be read as UTF-8 text; restore it from the repository")
    assert name.endswith("first.sql: name it NNNN_what_it_does.sql")
