"""Imports point one way: dags, plugins, standalone -> airflow, cli -> ... -> configuration."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.mltrading.configuration.settings import PROJECT_ROOT

PACKAGE = PROJECT_ROOT / "include" / "mltrading"
# The floors, from the ground up: what stands on one imports from those below it, and within a floor from what
# stands to its left.
FLOORS = [
    ["errors", "configuration"],
    ["market", "features"],
    ["store"],
    ["pipeline"],
    ["operations", "monitor", "alerts"],
    ["cli", "__main__", "airflow"],
]
ORDER = {room: (floor, place) for floor, rooms in enumerate(FLOORS) for place, room in enumerate(rooms)}
APART = {"features": "market", "airflow": "cli"}  # neighbours that do not know each other


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                package = ".".join(path.relative_to(PROJECT_ROOT).parts[: -node.level])
                module = f"{package}.{module}".rstrip(".")
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str:
    """The room of include.mltrading that a module stands in; "" for any other module."""
    parts = module.split(".")
    return parts[2] if parts[:2] == ["include", "mltrading"] and len(parts) > 2 else ""


@pytest.mark.parametrize("room", ORDER)
def test_imports_point_one_way(room: str) -> None:
    files = [PACKAGE / f"{room}.py"] if (PACKAGE / f"{room}.py").exists() else (PACKAGE / room).rglob("*.py")
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in files
        for name in imported(path)
        if (other := room_of(name)) in ORDER and other != room
        if ORDER[other] > ORDER[room] or APART.get(room) == other
    ]
    assert wrong == []


def test_every_room_has_its_floor_and_only_one_knows_airflow() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if path.stem not in ("__init__", "__pycache__")}
    assert rooms == set(ORDER)
    knowing = {
        path.relative_to(PACKAGE).parts[0]
        for path in PACKAGE.rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] == "airflow"
    }
    assert knowing == {"airflow"}


def test_the_architecture_page_shows_the_same_floors() -> None:
    page = (PROJECT_ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| ([^|]+) \|", page, re.MULTILINE)
    shown = [set(re.findall(r"`(\w+)(?:/|\.py)`", rooms)) for _, rooms in sorted(rows)]
    # Beside the commands, __main__.py only calls them.
    assert shown == [set(rooms) - {"__main__"} for rooms in FLOORS]


def test_the_product_never_imports_the_simulator_or_the_tools() -> None:
    wrong = [
        f"{path} imports {name}"
        for folder in (PACKAGE, PROJECT_ROOT / "dags", PROJECT_ROOT / "plugins")
        for path in folder.rglob("*.py")
        for name in imported(path)
        if name.startswith(("include.market_simulator", "include.reference", "include.standalone"))
    ]
    assert wrong == []


def test_all_sql_comes_from_the_sql_folder() -> None:
    verbs = ("SELECT ", "INSERT ", "UPDATE ", "DELETE ", "CREATE ", "COPY ")
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(verbs)
    ]
    # Taking the lock that serialises migrations, before there is any schema.
    assert [place.split(":")[0] for place in found] == ["store/migrations.py"]
