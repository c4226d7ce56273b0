"""The generated pages of docs/ are what the code says, and say what each thing means."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from include.mltrading.configuration.settings import PROJECT_ROOT
from include.mltrading.operations.validate import INTERNAL_VARIABLES, VARIABLES
from include.reference import commands, configuration, features

PAGES = {"commands": commands.render, "configuration": configuration.render, "features": features.render}


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_the_generated_one(name: str) -> None:
    page = (PROJECT_ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert page == PAGES[name](), "run: make docs"


@pytest.mark.parametrize("render", [commands.render, configuration.render])
def test_every_row_says_what_it_means(render: Callable[[], str]) -> None:
    without = [line for line in render().splitlines() if line.startswith("| `") and line.endswith("|  |")]
    assert without == []


def test_every_variable_that_is_accepted_is_in_the_configuration_page() -> None:
    page = configuration.render()
    assert [name for name in sorted(VARIABLES) if f"| `{name}` |" not in page] == []
    assert [name for name in sorted(INTERNAL_VARIABLES) if f"`{name}`" in page] == []
