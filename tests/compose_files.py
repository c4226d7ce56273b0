"""The compose files as `docker compose` reads them: merged, and with the values of an .env file."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
COMPOSE, OVERRIDE = "docker-compose.yaml", "docker-compose.override.yml"
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?P<kind>:[?-])(?P<rest>[^}]*)\}")


def load(name: str) -> dict[str, Any]:
    """A YAML file of the project."""
    content = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def services() -> dict[str, dict[str, Any]]:
    """The services of `docker compose up`: both files, the override's keys over the first one's."""
    merged: dict[str, dict[str, Any]] = {}
    for name in (COMPOSE, OVERRIDE):
        for service, wanted in load(name)["services"].items():
            had = merged.setdefault(service, {})
            for key, value in wanted.items():
                had[key] = {**had[key], **value} if isinstance(had.get(key), dict) else value
    return merged


def interpolated(value: str, variables: Mapping[str, str]) -> str:
    """The value with ${…} filled in and $$ for $; a demanded variable that is missing is a KeyError."""

    def fill(item: re.Match[str]) -> str:
        if item["kind"] == ":?":
            return variables[item["name"]]
        return variables.get(item["name"]) or item["rest"]

    return VARIABLE.sub(fill, value).replace("$$", "$")


def ignored_by_the_image() -> list[str]:
    """The patterns of .dockerignore."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def env_file(folder: Path) -> dict[str, str]:
    """Make .env by the commands that .env.example holds; its values."""
    shutil.copy(ROOT / ".env.example", folder)
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    commands = [line.removeprefix("#   ") for line in lines if line.startswith("#   ")]
    subprocess.run(["bash", "-euc", "\n".join(commands)], cwd=folder, check=True)
    lines = (folder / ".env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def copy_into_the_image(folder: Path) -> None:
    """What `COPY . .` brings into the image: everything but what .dockerignore names."""
    patterns = [pattern.removeprefix("**/") for pattern in ignored_by_the_image()]

    def ignored(parent: str, names: list[str]) -> list[str]:
        return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]

    shutil.copytree(ROOT, folder, ignore=ignored)
