"""What the documents tell people to type is what the programs take, and what they name exists."""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from airflow.cli.cli_parser import get_parser
from compose_files import services
from documents import DOCUMENTS, blocks, parts, spans, typed

from include.mltrading.__main__ import _parser
from include.mltrading.airflow import backfill
from include.mltrading.airflow.compat import MAJOR
from include.mltrading.configuration.airflow_settings import load_settings
from include.mltrading.configuration.alert_kinds import Kind
from include.mltrading.configuration.deployments import DagId
from include.mltrading.configuration.settings import PROJECT_ROOT, Settings
from include.mltrading.features.definitions import FEATURES
from include.mltrading.operations.validate import VARIABLES
from include.mltrading.pipeline.collect import FETCH_SECONDS
from include.mltrading.store.migrations import available
from include.standalone.__main__ import main as standalone

RUNBOOK = PROJECT_ROOT / "docs" / "runbook.md"
ARCHITECTURE = PROJECT_ROOT / "docs" / "architecture.md"
MAKEFILE = (PROJECT_ROOT / "Makefile").read_text(encoding="utf-8")


# Every command: parsed by what parses it when it is typed.


def make(given: list[str]) -> None:
    for word in given:
        name, equals, _ = word.partition("=")
        known = rf"\(?\b{name}\b|^#.*\b{name}=" if equals else rf"^{re.escape(name)}:"
        assert re.search(known, MAKEFILE, re.MULTILINE), word


def python(given: list[str]) -> None:
    flag, module, *rest = given
    assert flag == "-m"
    if module == "pytest":
        of_pytest(rest)
    elif module == "include.mltrading":
        if rest not in (["…"], ["COMMAND", "--help"]):
            parses(_parser(), rest)
    elif module == "include.standalone":
        standalone_command(rest)
    elif module == "include.mltrading.airflow.backfill":
        if rest:
            parses(backfill.parser(), rest)
    else:
        assert (PROJECT_ROOT / f"{module.replace('.', '/')}.py").exists(), module
        assert rest == []


def of_pytest(given: list[str]) -> None:
    paths = [PROJECT_ROOT / word for word in given if word.startswith("tests/")]
    assert paths
    assert all(path.exists() for path in paths), given
    if "-k" in given:
        word = given[given.index("-k") + 1]
        assert any(re.search(rf"^def test_\w*{word}", path.read_text(), re.MULTILINE) for path in paths), word
    assert {word for word in given if word.startswith("-")} <= {"-k"}


def standalone_command(given: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        standalone([given[0], "--help"])
    assert ended.value.code == 0, given


def airflow(given: list[str]) -> None:
    if MAJOR == 2 or given[:2] != ["dags", "backfill"]:  # which Airflow 3 has no more
        parses(get_parser(), given)
    dags = [word for word in given if "-" in word and word in get_args(DagId)]
    if given[:2] in (["dags", "trigger"], ["dags", "unpause"], ["tasks", "clear"]):
        assert len(dags) == 1, given


def psql(given: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="psql")
    parser.add_argument("-X", action="store_true")
    for option in ("-c", "-f", "-U", "-d"):
        parser.add_argument(option)
    parser.add_argument("database", nargs="?")
    file = str(parser.parse_args(given).f or "sql/roles.sql")
    # Compose mounts it into the container.
    file = file.replace("/docker-entrypoint-initdb.d/", "sql/")
    assert (PROJECT_ROOT / file).exists(), file


def docker(given: list[str]) -> None:
    assert given[0] == "compose"
    if given == ["compose"]:  # the program's name
        return
    parser = argparse.ArgumentParser(prog="docker compose")
    parser.add_argument(
        "--profile", choices={name for item in services().values() for name in item.get("profiles", ())}
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    up, run = verbs.add_parser("up"), verbs.add_parser("run")
    for flag in ("-d", "--build", "--wait"):
        up.add_argument(flag, action="store_true")
    up.add_argument("--scale", type=lambda text: text.partition("=")[0], choices=services())
    for flag in ("--rm", "--no-deps"):
        run.add_argument(flag, action="store_true")
    for verb in (up, run, verbs.add_parser("exec"), verbs.add_parser("logs"), verbs.add_parser("ps")):
        verb.add_argument("service", nargs="?", choices=services())
    arguments, inside = given[1:], []
    for word in ("exec", "run"):
        if word in arguments:
            at = next(i for i, item in enumerate(arguments) if item in services())
            arguments, inside = arguments[: at + 1], arguments[at + 1 :]
    parses(parser, arguments)
    if inside and inside != ["bash"]:
        check(inside)


def astro(given: list[str]) -> None:
    assert given in (["dev", "start"], ["dev", "stop"], ["dev", "bash"], ["dev", "logs"]), given


def systemctl(given: list[str]) -> None:
    unit = given[-1] if "." in given[-1] else f"{given[-1]}.service"
    assert (PROJECT_ROOT / "docs" / "examples" / unit).exists(), unit
    assert given[0] in ("enable", "restart", "status")


def curl(given: list[str]) -> None:
    assert given[-1].endswith("/market_monitor/health")
    assert {"--fail", "--max-time"} <= set(given)


def export(given: list[str]) -> None:
    assert given[0].partition("=")[0] in VARIABLES


def anything(given: list[str]) -> None:
    assert given


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "make": make, "python": python, ".venv/bin/python": python, "airflow": airflow, "psql": psql,
    "docker": docker, "astro": astro, "systemctl": systemctl, "curl": curl, "export": export,
    "pre-commit": anything, "ps": anything,
}  # fmt: skip

# What no test runs, though tests run what stands behind it.
NOT_RUN = {
    "docker": "needs a container engine; test_compose_natively.py runs the services' own commands",
    "astro": "needs Astro's CLI and a container engine",
    "systemctl": "needs systemd and root; test_deployment_files.py checks the units",
    "curl": "needs a web server; test_monitor_page.py asks the same address",
    "pre-commit": "is no program of this project's environment; its hooks are those of make lint",
    "ps": "is the operating system's",
}


def parses(parser: argparse.ArgumentParser, given: list[str]) -> None:
    try:
        parser.parse_args(given)
    except SystemExit as ended:
        pytest.fail(f"exit code {ended.code}: {' '.join(given)}")


def check(command: list[str]) -> None:
    program, *given = command
    assert program in CHECKS, f"no test knows {program}: {' '.join(command)}"
    CHECKS[program](given)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_is_one_that_its_program_takes(path: Path) -> None:
    for command in typed(path, set(CHECKS)):
        check(command)


def test_what_is_not_run_is_used_and_has_its_reason() -> None:
    used = {command[0] for path in DOCUMENTS for command in typed(path, set(CHECKS))}
    assert set(NOT_RUN) <= used <= set(CHECKS)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_of_ours_that_is_named_without_python_has_its_options(path: Path) -> None:
    [commands] = [action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction)]
    for span in spans(path):
        name, *rest = re.sub(r"[\[\]]", "", span).split()
        if rest and name in commands.choices:
            known = commands.choices[name]._option_string_actions
            assert [word for word in rest if word.startswith("--") and word not in known] == [], span


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_block_says_its_language_and_every_shell_block_is_one(path: Path) -> None:
    languages = {language for language, _ in parts(path)} - {None}
    assert languages <= {"sh", "python", "sql", "mermaid"}
    for block in blocks(path, "sh"):
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), block


def test_the_runbook_uses_every_command_of_an_operator() -> None:
    given = [
        command[3] for command in typed(RUNBOOK, set(CHECKS)) if command[1:3] == ["-m", "include.mltrading"]
    ]
    assert set(given) >= {
        "validate", "check", "alerts", "quarantine", "maintain", "archive", "migrate", "collect", "features",
    }  # fmt: skip


# Names.


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_and_variable_that_is_named_exists(path: Path) -> None:
    places = [PROJECT_ROOT / place for place in ("", "include/mltrading", "include/config", "docs")]
    for span in spans(path):
        named = re.fullmatch(
            r"(?:[a-z_.-]+/)*[\w.-]+\.(?:py|sql|md|yaml|yml|txt|toml|sh)|(?:[a-z_-]+/)+", span
        )
        if named and not span.startswith(("backups/", ".")):
            assert any((place / span).exists() for place in places), span
        for name in re.findall(r"\bMLTRADING_[A-Z_]+\b", span):
            assert name in VARIABLES, name


def test_every_name_in_the_diagrams_exists() -> None:
    diagrams = blocks(ARCHITECTURE, "mermaid")
    assert len(diagrams) == 2
    package = PROJECT_ROOT / "include" / "mltrading"
    code = "\n".join(path.read_text() for path in package.rglob("*.py"))
    known = {
        *re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", "".join(migration.statements for migration in available())),
        *(pool.pool_name for pool in load_settings().pools),
    }
    for diagram in diagrams:
        for name, function in re.findall(r"((?:\w+/)+\w+\.py)(?: (\w+)\(\))?", diagram):
            [file] = [place / name for place in (package, PROJECT_ROOT) if (place / name).exists()]
            assert not function or f"def {function}(" in file.read_text(), function
        words = re.sub(r"(?:\w+/)+\w+\.py", "", diagram)
        assert set(re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", words)) <= known
        for name in re.findall(r"\b(?:[A-Z][a-z]+){2,}\b", words):
            assert f"class {name}" in code, name


def test_the_limits_in_the_diagrams_are_those_of_the_program() -> None:
    text = "".join(blocks(ARCHITECTURE, "mermaid"))
    default = Settings()
    features = (
        f"{default.symbol_seconds} s, {default.symbol_cpu_seconds} s of processor time, "
        f"{default.symbol_memory_mb} MB"
    )
    assert f"features: {features}" in text
    assert f"collection: {FETCH_SECONDS} s, {default.collect_memory_mb} MB" in text
    assert f"{default.yahoo_requests_per_second:g} request/s" in text
    pools = ", ".join(f"{pool.pool_name} {pool.pool_slot}" for pool in load_settings().pools)
    assert f"pools: {pools}<br>" in text or f'pools: {pools}"' in text


# Numbers and rows.


def test_every_page_tells_the_number_of_features() -> None:
    pattern = re.compile(r"(\d+)\s(?:technical\s)?(?:features|definitions)\b")
    told = {
        f"{path.name}: {found[0]}": found[1]
        for path in DOCUMENTS
        if path.name != "CHANGELOG.md"
        for found in pattern.finditer(path.read_text(encoding="utf-8"))
    }
    assert told
    assert {place for place, number in told.items() if number != str(len(FEATURES))} == set()


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


def test_the_index_lists_every_page() -> None:
    index = (PROJECT_ROOT / "docs" / "README.md").read_text()
    listed = re.findall(r"^- \[(?:\.\./)?[\w-]+\.md\]\(([^)]+)\)", index, re.MULTILINE)
    pages = {path.resolve() for path in DOCUMENTS} - {
        PROJECT_ROOT / "README.md",
        PROJECT_ROOT / "docs" / "README.md",
    }
    assert sorted((PROJECT_ROOT / "docs" / name).resolve() for name in listed) == sorted(pages)


def headings(path: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    lines = (line for language, text in parts(path) if language is None for line in text.splitlines())
    return {
        re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
        for line in lines
        if line.startswith("#")
    }


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_the_documents_lead_somewhere(path: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", path.read_text(encoding="utf-8")):
        file = path.parent / target if target else path
        assert file.exists(), target
        assert not anchor or anchor in headings(file), f"{target}#{anchor}"
