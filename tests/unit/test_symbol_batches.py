"""How a universe larger than Airflow maps is planned, and how a batch's outcome is told."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from include.mltrading.cli.task import Task, run_task
from include.mltrading.configuration.settings import Settings
from include.mltrading.configuration.symbols import MAX_BATCHES
from include.mltrading.errors import UsageError
from include.mltrading.pipeline.run import Run

TASK = Task("plan_symbols", Run("dag", "run", 1, datetime(2026, 1, 21, 16, tzinfo=UTC)), manual=True)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """1,057 symbols."""
    path = tmp_path / "symbols.txt"
    path.write_text("\n".join(f"S{number}" for number in range(1057)) + "\n")
    return Settings(symbols_file=path)


def test_more_batches_than_airflow_maps_are_refused_with_the_remedy(settings: Settings) -> None:
    with pytest.raises(UsageError, match=r"1057 symbols.*MLTRADING_SYMBOLS_PER_TASK to at least 2"):
        run_task(TASK, settings)


def test_batches_hold_every_symbol_once(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_task(TASK, replace(settings, symbols_per_task=25)) == 0
    planned = json.loads(capsys.readouterr().out)
    assert len(planned) == 43 <= MAX_BATCHES
    assert [symbol for batch in planned for symbol in batch] == [f"S{number}" for number in range(1057)]
