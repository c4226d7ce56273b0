"""What the environment says: the MLTRADING_* variables, read once and checked.

A plain dataclass, because every isolated child pays for this import: a settings library would cost it
more than reading its bars does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from include.mltrading.errors import UsageError

PROJECT_ROOT = Path(__file__).resolve().parents[3]

_Number = TypeVar("_Number", int, float)
_TOO_LARGE = 1_000_000_000


@dataclass(frozen=True)
class Settings:
    """The product's settings.

    database_url: libpq URL, None = libpq's own PG* variables. yahoo_url: base URL that stands in for
    Yahoo's hosts, None = Yahoo itself. yahoo_requests_per_second: over all processes and hosts.
    symbols_per_task: symbols in one mapped task instance. symbol_seconds, symbol_cpu_seconds: limits on
    computing one symbol, by the clock and in processor time. symbol_memory_mb, collect_memory_mb: what
    computing or collecting one symbol may allocate beyond what the runner itself has mapped. smtp_url: the
    mail server of the command line, None = Airflow's connection. verify_database: the empty database beside
    the market database in which backups are verified, None = that one's name with _verify.
    """

    database_url: str | None = None
    yahoo_url: str | None = None
    yahoo_requests_per_second: float = 1.0
    symbols_file: Path = PROJECT_ROOT / "include" / "config" / "symbols.txt"
    deployments_file: Path = PROJECT_ROOT / "include" / "config" / "deployments.yaml"
    symbols_per_task: int = 1
    symbol_seconds: int = 30
    symbol_cpu_seconds: int = 20
    symbol_memory_mb: int = 256
    collect_memory_mb: int = 448
    smtp_url: str | None = None
    verify_database: str | None = None

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
        problems: list[str] = []

        def number(name: str, kind: Callable[[str], _Number], default: _Number, least: _Number) -> _Number:
            try:
                return _number(environment, name, kind, default, least)
            except UsageError as error:
                problems.append(str(error))
                return default

        try:
            yahoo_url = _url(environment, "MLTRADING_YAHOO_URL")
        except UsageError as error:
            problems.append(str(error))
            yahoo_url = None
        settings = cls(
            database_url=environment.get("MLTRADING_DATABASE_URL") or None,
            yahoo_url=yahoo_url,
            yahoo_requests_per_second=number(
                "MLTRADING_YAHOO_REQUESTS_PER_SECOND", float, cls.yahoo_requests_per_second, 0.01
            ),
            symbols_file=_path(environment, "MLTRADING_SYMBOLS_FILE", cls.symbols_file),
            deployments_file=_path(environment, "MLTRADING_DEPLOYMENTS_FILE", cls.deployments_file),
            symbols_per_task=number("MLTRADING_SYMBOLS_PER_TASK", int, cls.symbols_per_task, 1),
            symbol_seconds=number("MLTRADING_SYMBOL_SECONDS", int, cls.symbol_seconds, 1),
            symbol_cpu_seconds=number("MLTRADING_SYMBOL_CPU_SECONDS", int, cls.symbol_cpu_seconds, 1),
            symbol_memory_mb=number("MLTRADING_SYMBOL_MEMORY_MB", int, cls.symbol_memory_mb, 32),
            collect_memory_mb=number("MLTRADING_COLLECT_MEMORY_MB", int, cls.collect_memory_mb, 32),
            smtp_url=environment.get("MLTRADING_SMTP_URL") or None,
            verify_database=environment.get("MLTRADING_VERIFY_DATABASE") or None,
        )
        return settings, problems


def _number(
    environment: Mapping[str, str],
    name: str,
    kind: Callable[[str], _Number],
    default: _Number,
    least: _Number,
) -> _Number:
    text = environment.get(name, "").strip()
    if not text:
        return default
    try:
        value = kind(text)
    except ValueError:
        value = None
    # NaN fails the comparison too.
    if value is None or not least <= value < _TOO_LARGE:
        raise UsageError(
            f"{name}={text!r}: give a number from {least} to below {_TOO_LARGE:,}, "
            f"or unset it (default {default})"
        )
    return value


def _path(environment: Mapping[str, str], name: str, default: Path) -> Path:
    text = environment.get(name, "")
    return Path(text) if text else default


def _url(environment: Mapping[str, str], name: str) -> str | None:
    text = environment.get(name, "").strip()
    if not text:
        return None
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
