"""The files around the code: workflow, hooks, editor rules, changelog."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import tomllib
from typing import Any

import pytest
import yaml

from include.mltrading.configuration.settings import PROJECT_ROOT

WORKFLOW = PROJECT_ROOT / ".github" / "workflows" / "ci.yml"


def workflow() -> dict[str, Any]:
    content = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def project() -> dict[str, Any]:
    return tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("schema", ["vendor.github-workflows", "custom.github-workflows-require-timeout"])
def test_the_workflow_is_one_that_github_takes(schema: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(WORKFLOW)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_workflow_runs_ci_on_every_supported_python_with_least_rights() -> None:
    content = workflow()
    assert content["permissions"] == {"contents": "read"}
    assert content["concurrency"]["cancel-in-progress"] is True
    [job] = content["jobs"].values()
    least, below = re.findall(r"3\.(\d+)", project()["requires-python"])
    assert job["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in range(int(least), int(below))]
    assert [step.get("run") for step in job["steps"]][-2:] == [
        "make setup PYTHON=python${{ matrix.python }}",
        ".ci/run",
    ]
    for action in [step["uses"] for step in job["steps"] if "uses" in step]:
        assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", action), action


def test_the_hooks_run_what_make_lint_runs() -> None:
    lint = (PROJECT_ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    lint = (
        lint.replace("$(PYTHON_OF_VENV)", "$(VENV)/bin/python")
        .replace("$(VENV)", ".venv")
        .replace(" .\n", "\n")
    )
    [local] = yaml.safe_load((PROJECT_ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    for hook in local["hooks"]:
        assert hook["language"] == "system"
        assert f"@{hook['entry'].replace(' --force-exclude', '')}\n" in f"{lint}\n", hook["id"]


def test_every_text_file_keeps_the_editors_rules() -> None:
    rules = configparser.ConfigParser()
    rules.read_string("[top]\n" + (PROJECT_ROOT / ".editorconfig").read_text())
    assert (rules["*"]["end_of_line"], rules["*"]["insert_final_newline"]) == ("lf", "true")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT_ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("SKIPPED: needs git and its checkout")
    for name in listed.stdout.decode().split("\0")[:-1]:
        if name.endswith(".jpg") or name.startswith("plugins/static/vendor/"):
            continue
        content = (PROJECT_ROOT / name).read_bytes()
        assert content == b"" or content.endswith(b"\n"), name
        assert not re.search(rb"\r|[ \t]\n", content), name


def test_the_changelog_has_the_version_of_the_project() -> None:
    text = (PROJECT_ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[([^\]]+)\]", text, re.MULTILINE)
    assert versions[:2] == ["Unreleased", project()["version"]]
