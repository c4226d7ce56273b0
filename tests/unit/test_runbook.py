"""What the documents tell people to type is what the programs take, and every mail has its remedy."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from airflow.cli.cli_parser import get_parser

from include.mltrading.__main__ import _parser
from include.mltrading.configuration.alert_kinds import Kind
from include.mltrading.configuration.deployments import DagId
from include.mltrading.configuration.settings import PROJECT_ROOT

DOCUMENTS = [PROJECT_ROOT / "README.md", *sorted((PROJECT_ROOT / "docs").glob("*.md"))]
RUNBOOK = PROJECT_ROOT / "docs" / "runbook.md"


def typed(path: Path) -> Iterator[str]:
    """Commands: the lines of shell blocks, and what stands between backticks in the text."""
    for index, part in enumerate(re.split(r"^\s*```", path.read_text(encoding="utf-8"), flags=re.MULTILINE)):
        if index % 2:
            language, _, block = part.partition("\n")
            if language == "sh":
                yield from block.replace("\\\n", " ").splitlines()
        else:
            yield from re.findall(r"`([^`]+)`", part)


def arguments(program: str) -> list[tuple[str, list[str]]]:
    """The documents' calls of a program: where, and its arguments."""
    found = []
    for path in DOCUMENTS:
        for line in typed(path):
            words = " ".join(line.split()).removeprefix("docker compose exec scheduler ")
            if words.startswith(f"{program} ") and not words.endswith(" COMMAND --help"):
                given = shlex.split(words.removeprefix(program), comments=True)
                if given != ["…"]:
                    found.append((path.name, given))
    assert found, f"no document calls {program}"
    return found


def assert_parses(parser: argparse.ArgumentParser, given: list[str]) -> None:
    try:
        parser.parse_args(given)
    except SystemExit as ended:
        pytest.fail(f"exit code {ended.code}: {' '.join(given)}")


def test_every_command_of_ours_in_the_documents_parses() -> None:
    calls = arguments("python -m include.mltrading")
    for _, given in calls:
        assert_parses(_parser(), given)
    named = {given[0] for where, given in calls if where == RUNBOOK.name}
    assert named >= {
        "validate", "check", "alerts", "quarantine", "maintain", "archive", "migrate", "collect", "features",
    }  # fmt: skip


def test_every_command_of_airflows_in_the_documents_parses() -> None:
    for _, given in arguments("airflow"):
        assert_parses(get_parser(), given)
        dags = [word for word in given if "-" in word and word in get_args(DagId)]
        if given[:2] in (["dags", "trigger"], ["dags", "unpause"], ["tasks", "clear"]):
            assert len(dags) == 1, given


def test_every_make_target_in_the_documents_exists() -> None:
    makefile = (PROJECT_ROOT / "Makefile").read_text()
    for where, given in arguments("make"):
        assert re.search(rf"^{re.escape(given[0])}:", makefile, re.MULTILINE), f"{where}: make {given[0]}"


def rows_of_kinds(path: Path) -> dict[str, str]:
    """First cell of a table -> its last cell, for the rows that begin with kinds of alerts."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        for name in re.findall(r"`(\w+)`", cells[0]) if line.startswith("| `") else []:
            found[name] = cells[-1]
    return found


@pytest.mark.parametrize("name", ["runbook.md", "alerts.md"])
def test_every_kind_of_alert_has_its_remedy(name: str) -> None:
    remedies = rows_of_kinds(PROJECT_ROOT / "docs" / name)
    missing = [kind for kind in get_args(Kind) if not remedies.get(kind)]
    assert missing == []


def test_every_dag_has_its_rule_for_clearing() -> None:
    rules = RUNBOOK.read_text().partition("## What may be cleared")[2].partition("\n## ")[0]
    for dag_id in get_args(DagId):
        assert f"| `{dag_id}` |" in rules


def test_links_between_the_documents_lead_somewhere() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
    assert "docs/runbook.md" in (PROJECT_ROOT / "README.md").read_text()


def test_headings_that_are_linked_to_exist() -> None:
    text = RUNBOOK.read_text()
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
        for line in text.splitlines() if line.startswith("#")
    }  # fmt: skip
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings
