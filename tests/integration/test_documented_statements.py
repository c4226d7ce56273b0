"""The SQL that the documents tell people to type runs as it stands, as the pipeline's role."""

from __future__ import annotations

import psycopg
import pytest
from documents import DOCUMENTS, blocks, commands

pytestmark = pytest.mark.integration

# The superuser's, outside of a transaction; the roles' tests and the recovery drill have such databases made.
NOT_RUN = {"CREATE DATABASE mltrading_verify OWNER mltrading", "CREATE DATABASE mltrading_drill"}


def statements() -> list[str]:
    """What the documents give to psql -c."""
    typed = [command for path in DOCUMENTS for block in blocks(path, "sh") for command in commands(block)]
    return [command[command.index("-c") + 1] for command in typed if "psql" in command and "-c" in command]


def test_every_documented_statement_runs(database: str) -> None:
    found = statements()
    assert set(found) >= NOT_RUN
    with psycopg.connect(database) as connection:
        for statement in set(found) - NOT_RUN:
            if not statement.startswith(r"\copy "):  # psql's own: test_views.py runs it
                connection.execute(statement)  # type: ignore[call-overload]
