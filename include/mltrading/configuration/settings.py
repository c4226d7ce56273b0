"""What the environment says: the MLTRADING_* variables, read once and checked.

A plain dataclass, because every isolated child pays for this import: a settings library would cost it
more than reading its bars does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from include.mltrading.errors import UsageError

PROJECT_ROOT = Path(__file__).resolve().parents[3]

_TOO_LARGE = 1_000_000_000


@dataclass(frozen=True)
class Settings:
    """The product's settings: each is read from the variable MLTRADING_<its name>.

    The meanings make docs/configuration.md; "least" is what a number must reach.
    """

    database_url: str | None = field(
        default=None,
        metadata={"meaning": "The market database, as a libpq URL. Unset: the `PG*` variables of libpq."},
    )
    yahoo_url: str | None = field(
        default=None, metadata={"meaning": "Base URL of a server that stands in for Yahoo. Unset: Yahoo."}
    )
    yahoo_requests_per_second: float = field(
        default=1.0,
        metadata={
            "meaning": "Most requests to Yahoo in a second, over all processes and machines together.",
            "least": 0.01,
        },
    )
    symbols_file: Path = field(
        default=PROJECT_ROOT / "include" / "config" / "symbols.txt",
        metadata={"meaning": "The file with the symbols to collect."},
    )
    deployments_file: Path = field(
        default=PROJECT_ROOT / "include" / "config" / "deployments.yaml",
        metadata={"meaning": "The file with schedules, thresholds and alerts."},
    )
    symbols_per_task: int = field(
        default=1, metadata={"meaning": "Symbols in one mapped task instance.", "least": 1}
    )
    symbol_seconds: int = field(
        default=30, metadata={"meaning": "Seconds that computing one symbol may take.", "least": 1}
    )
    symbol_cpu_seconds: int = field(
        default=20,
        metadata={"meaning": "Seconds of processor time that computing one symbol may take.", "least": 1},
    )
    symbol_memory_mb: int = field(
        default=256,
        metadata={
            "meaning": "Memory in MB that computing one symbol may allocate beyond what the runner holds.",
            "least": 32,
        },
    )
    collect_memory_mb: int = field(
        default=448,
        metadata={
            "meaning": "Memory in MB that collecting one symbol may allocate beyond what the runner holds.",
            "least": 32,
        },
    )
    smtp_url: str | None = field(
        default=None,
        metadata={
            "meaning": "The mail server of the command line: `smtp://host:25`, "
            "`smtp+starttls://user:password@host:587` or `smtps://…`. Unset: the connection `smtp_default`."
        },
    )
    verify_database: str | None = field(
        default=None,
        metadata={
            "meaning": "The empty database beside the market database in which backups are verified. "
            "Unset: the one with the market database's name and `_verify`."
        },
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Settings from MLTRADING_* variables; an empty variable counts as unset.

        Raises UsageError naming each wrong variable and what it takes, one a line.
        """
        settings, problems = cls.read(environment)
        if problems:
            raise UsageError("\n".join(problems))
        return settings

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> tuple[Settings, list[str]]:
        """Settings with defaults in the place of wrong values, and what is wrong."""
        values: dict[str, Any] = {}
        problems: list[str] = []
        for setting in fields(cls):
            text = environment.get(variable(setting), "")
            try:
                if text.strip():
                    values[setting.name] = _value(setting, text)
            except UsageError as error:
                problems.append(str(error))
        return cls(**values), problems


def variable(setting: Field[Any]) -> str:
    """The name of the variable that gives a setting."""
    return f"MLTRADING_{setting.name.upper()}"


def _value(setting: Field[Any], text: str) -> Any:
    """What a variable's text says. Raises UsageError."""
    if "least" in setting.metadata:
        return _number(setting, text.strip())
    if isinstance(setting.default, Path):
        return Path(text)
    return _url(variable(setting), text.strip()) if setting.name == "yahoo_url" else text


def _number(setting: Field[Any], text: str) -> float:
    default, least = setting.default, setting.metadata["least"]
    try:
        value: float | None = (int if isinstance(default, int) else float)(text)
    except ValueError:
        value = None
    # NaN fails the comparison too.
    if value is None or not least <= value < _TOO_LARGE:
        raise UsageError(
            f"{variable(setting)}={text!r}: give a number from {least} to below {_TOO_LARGE:,}, "
            f"or unset it (default {default})"
        )
    return value


def _url(name: str, text: str) -> str:
    from urllib.parse import urlsplit  # the isolated children seldom need it

    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        shown = re.sub(r"[^/]*@", "…@", text)  # without a password
        raise UsageError(
            f"{name}={shown!r}: give a URL such as https://host or http://host:8080, or unset it"
        )
    return text.rstrip("/")
