"""docs/data-dictionary.md is what the migrations make, and every table and column has its meaning."""

from __future__ import annotations

import pytest

from include.mltrading.configuration.settings import PROJECT_ROOT, Settings
from include.mltrading.store.connection import connect
from include.reference import dictionary

pytestmark = pytest.mark.integration


@pytest.fixture
def rendered(settings: Settings) -> str:
    with connect(settings) as connection:
        return dictionary.render(connection)


def test_the_data_dictionary_is_that_of_a_migrated_database(rendered: str) -> None:
    page = (PROJECT_ROOT / "docs" / "data-dictionary.md").read_text(encoding="utf-8")
    assert page == rendered, "run: make docs"


def test_every_table_and_column_has_its_meaning(rendered: str) -> None:
    lines = rendered.splitlines()
    assert "." not in lines  # what a table without a comment would say
    without = [line for line in lines if line.startswith("| `") and line.endswith("|  |")]
    assert without == [], "give them a COMMENT ON in the migration that makes them"
