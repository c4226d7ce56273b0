"""The two modules that speak with Airflow's majors, of which an installation can load only one."""

from __future__ import annotations

import ast

from include.mltrading.configuration.settings import PROJECT_ROOT

AIRFLOW = PROJECT_ROOT / "include" / "mltrading" / "airflow"
# SLAs alone ask for them.
ONLY_2 = {"runs_of_ticks"}


def offered(major: int) -> dict[str, str]:
    """The public functions of a major's module, with their parameters."""
    module = ast.parse((AIRFLOW / f"airflow{major}" / "runs.py").read_text())
    return {
        node.name: ast.unparse(node.args)
        for node in module.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }


def test_both_majors_are_asked_in_the_same_words() -> None:
    two = offered(2)
    assert {name: arguments for name, arguments in two.items() if name not in ONLY_2} == offered(3)
    assert set(two) >= ONLY_2


def test_only_a_majors_own_room_and_who_chooses_it_name_a_version() -> None:
    naming = {
        path.relative_to(AIRFLOW).parts[0]
        for path in AIRFLOW.rglob("*.py")
        if "MAJOR" in path.read_text() or "airflow.sdk" in path.read_text().replace("common.compat.sdk", "")
    }
    assert naming <= {"airflow2", "airflow3", "compat.py"}
