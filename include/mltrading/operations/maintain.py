"""The house-keeping of a week: statistics, sizes and growth, old records, Airflow's own old records."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from psycopg import sql

from include.mltrading.configuration.settings import PROJECT_ROOT, Settings
from include.mltrading.errors import UsageError
from include.mltrading.store.connection import Connection, connect
from include.mltrading.store.migrations import require_current_schema
from include.mltrading.store.queries import query

HISTORY_DAYS = 90
_MOST_DAYS = 36500  # a hundred years is all

Report = Callable[[str], None]


@dataclass(frozen=True)
class Table:
    """A table after the house-keeping. bytes: with indexes; rows, dead_rows: about.

    grown_bytes, grown_rows: since the last maintain, at `since`; None before the first one. vacuumed: False
    where it is another role's, or somebody held it.
    """

    name: str
    bytes: int
    table_bytes: int
    rows: int
    dead_rows: int
    since: datetime | None
    grown_bytes: int | None
    grown_rows: int | None
    vacuumed: bool


@dataclass(frozen=True)
class Index:
    """An index. scans: since the server's statistics began. needed: it keeps rows unique, used or not."""

    table: str
    name: str
    bytes: int
    scans: int
    needed: bool


@dataclass(frozen=True)
class Maintained:
    """What was done. pruned: tries deleted. airflow: what came of `airflow db clean`, in words."""

    pruned: int
    history_days: int
    tables: list[Table]
    indexes: list[Index]
    airflow: str
    airflow_failed: bool


def maintain(settings: Settings, history_days: int, report: Report) -> Maintained:
    """Do it all; may be repeated at will, beside running pipelines too.

    history_days: older tries are deleted, but for the last one of each symbol and step. report: called with
    what is done next. Raises UsageError for fewer days than the monitor and the alerts look
    back, and for more than a calendar has.
    """
    if not 14 <= history_days <= _MOST_DAYS:
        raise UsageError(
            f"--history-days {history_days}: give at least 14, the monitor looks back a week, and at most "
            f"{_MOST_DAYS}"
        )
    with connect(settings) as connection:
        require_current_schema(connection)
        report("old tries")
        row = connection.execute(query("maintain/maintain_prune_history"), {"days": history_days}).fetchone()
        pruned = int(row[0]) if row else 0
        vacuumed = _vacuum(connection, report)
        tables = _tables(connection, vacuumed)
        indexes = [Index(*row) for row in connection.execute(query("maintain/maintain_indexes"))]
        connection.execute(
            query("maintain/maintain_record"),
            {
                "names": [table.name for table in tables],
                "bytes": [table.bytes for table in tables],
                "rows": [table.rows for table in tables],
            },
        )
    report("airflow db clean")
    failed, words = clean_airflow(datetime.now(UTC) - timedelta(days=history_days))
    return Maintained(pruned, history_days, tables, indexes, words, failed)


def _vacuum(connection: Connection, report: Report) -> set[str]:
    """Vacuum and analyze the tables that belong to this role; returns their names."""
    skipped: list[str] = []
    connection.add_notice_handler(lambda notice: skipped.append(notice.message_primary or ""))
    done = set()
    for name, *_, owned in connection.execute(query("maintain/maintain_tables")).fetchall():
        report(name)
        said = len(skipped)
        statement = query("maintain/maintain_vacuum" if owned else "maintain/maintain_analyze")
        connection.execute(sql.SQL(statement).format(table=sql.Identifier(name)))
        # The server passes over what somebody holds, or what is not ours, with a warning.
        if owned and len(skipped) == said:
            done.add(name)
    return done


def _tables(connection: Connection, vacuumed: set[str]) -> list[Table]:
    return [
        Table(
            name, size, own, rows, dead, since,
            None if since is None else size - last_bytes,
            None if since is None else rows - last_rows,
            name in vacuumed,
        )
        for name, size, own, rows, dead, since, last_bytes, last_rows, _ in connection.execute(
            query("maintain/maintain_tables")
        )
    ]  # fmt: skip


def clean_airflow(before: datetime) -> tuple[bool, str]:
    """Run `airflow db clean` for records of before that instant: whether it failed, and what came of it.

    A process of its own: nothing here imports Airflow.
    """
    if importlib.util.find_spec("airflow") is None:
        return False, "skipped: Airflow is not installed here"
    home = Path(os.environ.get("AIRFLOW_HOME") or Path.home() / "airflow")
    told = any(name.startswith("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN") for name in os.environ)
    if not told and not (home / "airflow.cfg").exists():
        return False, "skipped: no Airflow is set up here (AIRFLOW__DATABASE__SQL_ALCHEMY_CONN is not set)"
    done = subprocess.run(  # noqa: S603 - our own arguments, no shell
        [
            sys.executable, "-m", "airflow", "db", "clean", "--yes", "--skip-archive",
            "--clean-before-timestamp", before.isoformat(timespec="seconds"),
        ],
        cwd=PROJECT_ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        return True, f"FAILED with exit code {done.returncode}: {words[-1].strip()}"
    return False, f"records of before {before:%Y-%m-%d} are gone"
