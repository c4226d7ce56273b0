from __future__ import annotations

from pathlib import Path

import pytest

from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import UsageError


def test_defaults_hold_without_any_variable() -> None:
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert settings.yahoo_requests_per_second == 1
    assert settings.symbols_per_task == 1
    assert settings.symbol_seconds == 30
    assert max(settings.symbol_memory_mb, settings.collect_memory_mb) < 512
    assert settings.database_url is None
    assert settings.yahoo_url is None


def test_every_variable_reaches_its_setting() -> None:
    assert Settings.from_environment(
        {
            "MLTRADING_DATABASE_URL": "postgresql://h/d",
            "MLTRADING_YAHOO_URL": "http://127.0.0.1:1/",
            "MLTRADING_YAHOO_REQUESTS_PER_SECOND": "2.5",
            "MLTRADING_SYMBOLS_FILE": "/s",
            "MLTRADING_DEPLOYMENTS_FILE": "/d",
            "MLTRADING_SYMBOLS_PER_TASK": "25",
            "MLTRADING_SYMBOL_SECONDS": "40",
            "MLTRADING_SYMBOL_CPU_SECONDS": "35",
            "MLTRADING_SYMBOL_MEMORY_MB": "300",
            "MLTRADING_COLLECT_MEMORY_MB": "400",
            "MLTRADING_VERIFY_DATABASE": "empty",
        }
    ) == Settings(
        database_url="postgresql://h/d",
        yahoo_url="http://127.0.0.1:1",
        yahoo_requests_per_second=2.5,
        symbols_file=Path("/s"),
        deployments_file=Path("/d"),
        symbols_per_task=25,
        symbol_seconds=40,
        symbol_cpu_seconds=35,
        symbol_memory_mb=300,
        collect_memory_mb=400,
        verify_database="empty",
    )


def test_an_empty_variable_counts_as_unset() -> None:
    assert Settings.from_environment({"MLTRADING_SYMBOLS_PER_TASK": " "}) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MLTRADING_SYMBOLS_PER_TASK", "0"),
        ("MLTRADING_SYMBOLS_PER_TASK", "many"),
        ("MLTRADING_SYMBOLS_PER_TASK", "2.5"),
        ("MLTRADING_YAHOO_REQUESTS_PER_SECOND", "nan"),
        ("MLTRADING_YAHOO_REQUESTS_PER_SECOND", "inf"),
        ("MLTRADING_YAHOO_REQUESTS_PER_SECOND", "-1"),
        ("MLTRADING_YAHOO_URL", "127.0.0.1:80"),
        ("MLTRADING_YAHOO_URL", "http://["),
        ("MLTRADING_YAHOO_URL", "http://h:abc"),
        ("MLTRADING_YAHOO_URL", "http://"),
    ],
)
def test_a_wrong_value_is_refused_with_its_variable(name: str, value: str) -> None:
    with pytest.raises(UsageError) as refused:
        Settings.from_environment({name: value})
    assert name in str(refused.value)
    assert repr(value) in str(refused.value)


def test_a_value_that_is_too_large_is_told_how_large_it_may_be() -> None:
    with pytest.raises(UsageError, match=r"from 0\.01 to below 1,000,000,000"):
        Settings.from_environment({"MLTRADING_YAHOO_REQUESTS_PER_SECOND": "inf"})


def test_a_wrong_url_is_refused_without_its_password() -> None:
    with pytest.raises(UsageError) as refused:
        Settings.from_environment({"MLTRADING_YAHOO_URL": "socks://me:S3cret@proxy:x"})
    assert "MLTRADING_YAHOO_URL='socks://…@proxy:x'" in str(refused.value)
