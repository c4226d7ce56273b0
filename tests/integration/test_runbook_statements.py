"""The SQL that the runbook tells people to type runs as it stands, as the pipeline's role."""

from __future__ import annotations

import re

import psycopg
import pytest

from include.mltrading.configuration.settings import PROJECT_ROOT

pytestmark = pytest.mark.integration


def test_every_statement_of_the_runbook_runs(database: str) -> None:
    text = (PROJECT_ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    statements = re.findall(r'psql "\$MLTRADING_DATABASE_URL" -c "([^"]+)"', text)
    assert len(statements) == text.count("psql ") == 4
    with psycopg.connect(database) as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[arg-type]
