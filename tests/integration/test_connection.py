"""What an Airflow connection says reaches libpq; what libpq does not take is told in one line."""

from __future__ import annotations

import json
import os
import socket
from datetime import UTC, datetime
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from include.mltrading.airflow.connection import libpq_variables
from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import DatabaseRefusedError
from include.mltrading.store.connection import connect

pytestmark = pytest.mark.integration


def given_by_airflow(monkeypatch: pytest.MonkeyPatch, database: str, **extra: Any) -> Settings:
    """The settings of a process whose operator has such a connection."""
    parts = conninfo_to_dict(database)
    document = {
        "conn_type": "postgres", "host": parts["host"], "port": int(str(parts["port"])),
        "login": parts["user"], "password": parts["password"], "schema": parts["dbname"], "extra": extra,
    }  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_MLTRADING_DB", json.dumps(document))
    for name, value in libpq_variables().items():
        monkeypatch.setenv(name, value)
    return Settings.from_environment()


def test_the_extras_of_a_connection_reach_libpq_and_go_before_ours(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(Settings(database_url=database)) as ours:
        assert ours.execute("SHOW application_name").fetchone() == ("mltrading",)
        assert ours.info.get_parameters()["connect_timeout"] == "10"
    settings = given_by_airflow(
        monkeypatch, database,
        application_name="mine", connect_timeout=33, keepalives_idle=77, options="-c lock_timeout=5s",
    )  # fmt: skip
    with connect(settings) as connection:
        shown = [
            connection.execute(f"SHOW {name}").fetchone()  # type: ignore[arg-type]
            for name in ("application_name", "lock_timeout", "TimeZone")
        ]
        assert shown == [("mine",), ("5s",), ("UTC",)]
        assert connection.info.get_parameters()["connect_timeout"] == "33"
        with socket.socket(fileno=connection.fileno()) as wire:
            assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77
            wire.detach()


@pytest.mark.parametrize(
    "extra",
    [
        {"connect_timeout": "soon"},
        {"keepalives": "often"},
        {"sslmode": "maybe"},
        {"options": "-c nothing_of_that_name=1"},
        {"service": "nowhere"},
    ],
    ids=lambda extra: next(iter(extra)),
)
def test_an_option_with_a_wrong_value_is_refused_in_one_line(
    database: str, monkeypatch: pytest.MonkeyPatch, extra: dict[str, str]
) -> None:
    settings = given_by_airflow(monkeypatch, database, **extra)
    with pytest.raises(DatabaseRefusedError, match="database name and options in") as told:
        connect(settings)
    [value] = extra.values()
    assert value.split("=")[0].split()[-1] in str(told.value)
    assert str(conninfo_to_dict(database)["password"]) not in str(told.value)


def test_the_monitor_names_an_extra_that_libpq_does_not_take(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from include.mltrading.airflow import monitor_page

    given_by_airflow(monkeypatch, database)
    document = json.loads(os.environ["AIRFLOW_CONN_MLTRADING_DB"])
    monkeypatch.setenv("AIRFLOW_CONN_MLTRADING_DB", json.dumps(document | {"extra": {"sslmod": "hush"}}))
    answer, status = monitor_page._answered(lambda sources: ({}, 200), datetime.now(UTC))
    assert (answer["state"], status) == ("misconfigured", 503)
    assert "its extra 'sslmod' is no option of libpq" in answer["message"]
    assert "hush" not in answer["message"]
