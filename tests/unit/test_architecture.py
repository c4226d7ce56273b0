"""Imports point one way: dags, plugins -> airflow, monitor -> pipeline -> market, features, store."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.mltrading.settings import PROJECT_ROOT

PACKAGE = PROJECT_ROOT / "include" / "mltrading"
# Part of the package -> what it must not import.
FORBIDDEN = {
    "market": ["airflow", "include.mltrading.store", "include.mltrading.pipeline"],
    "features": [
        "airflow",
        "include.mltrading.store",
        "include.mltrading.pipeline",
        "include.mltrading.market",
    ],
    "store": ["airflow", "include.mltrading.pipeline", "include.mltrading.airflow"],
    "pipeline": ["airflow", "include.mltrading.airflow", "include.mltrading.monitor"],
    "alerts": ["airflow", "include.mltrading.airflow", "include.mltrading.monitor"],
    "monitor": ["airflow", "include.mltrading.airflow"],
    ".": ["airflow", "include.mltrading.airflow"],
}


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


def files_of(part: str) -> list[Path]:
    files = sorted(PACKAGE.glob("*.py") if part == "." else (PACKAGE / part).rglob("*.py"))
    assert files, f"nothing to check in {part}"
    return files


@pytest.mark.parametrize("part", FORBIDDEN)
def test_imports_point_one_way(part: str) -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in files_of(part)
        for name in imported(path)
        for banned in FORBIDDEN[part]
        if name == banned or name.startswith(f"{banned}.")
    ]
    assert wrong == []


def test_the_product_never_imports_the_simulator_or_the_bare_machine_commands() -> None:
    wrong = [
        f"{path} imports {name}"
        for folder in (PACKAGE, PROJECT_ROOT / "dags", PROJECT_ROOT / "plugins")
        for path in folder.rglob("*.py")
        for name in imported(path)
        if name.startswith(("include.market_simulator", "include.standalone"))
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
