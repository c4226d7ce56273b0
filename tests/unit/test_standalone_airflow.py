"""Airflow's environment on a bare machine: closed to others, generated secrets, the user's own settings."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from include.standalone import airflow
from include.standalone.airflow import MAJOR, admin_password, airflow_environment, airflow_home
from include.standalone.postgres import EmbeddedPostgres
from include.standalone.state import StandaloneError

WEB, HOST = (
    ("AIRFLOW__WEBSERVER", "AIRFLOW__WEBSERVER__WEB_SERVER_HOST")
    if MAJOR == 2
    else ("AIRFLOW__API", "AIRFLOW__API__HOST")
)
SECRETS = ("fernet_key", "secret_key", "admin_password")


@pytest.fixture(autouse=True)
def no_database_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLTRADING_DATABASE_URL", raising=False)


def _environment(state: Path, **options: str) -> dict[str, str]:
    """The environment of an installation whose server has a port, and need not run for this."""
    folder = state / "postgres"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "port").write_text("23456")
    return airflow_environment(state, EmbeddedPostgres(state), **options)


def test_the_web_server_listens_on_loopback_whatever_the_user_has_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HOST, "0.0.0.0")  # noqa: S104 (must not get through)

    env = _environment(tmp_path)

    assert env[HOST] == "127.0.0.1"


def test_a_users_own_tuning_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", "3")

    assert _environment(tmp_path)["AIRFLOW__CORE__PARALLELISM"] == "3"


def test_secrets_are_private_stable_and_of_this_installation_only(tmp_path: Path) -> None:
    one, again, other = (_environment(tmp_path / name) for name in ("one", "one", "other"))
    passwords = [admin_password(tmp_path / name) for name in ("one", "one", "other")]

    for key in ("AIRFLOW__CORE__FERNET_KEY", f"{WEB}__SECRET_KEY"):
        assert one[key] == again[key] != other[key]
    assert passwords[0] == passwords[1] != passwords[2]
    for name in SECRETS:
        assert stat.S_IMODE((airflow_home(tmp_path / "one") / name).stat().st_mode) == 0o600


def test_the_fernet_key_is_one(tmp_path: Path) -> None:
    from cryptography.fernet import Fernet

    key = Fernet(_environment(tmp_path)["AIRFLOW__CORE__FERNET_KEY"].encode())

    assert key.decrypt(key.encrypt(b"text")) == b"text"


def test_the_market_connection_is_the_url_in_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "MLTRADING_DATABASE_URL", "postgresql://me:a%2Fb%40c@db.example:6432/market?sslmode=require"
    )

    env = _environment(tmp_path)

    assert json.loads(env["AIRFLOW_CONN_MLTRADING_DB"]) == {
        "conn_type": "postgres",
        "host": "db.example",
        "port": 6432,
        "login": "me",
        "password": "a/b@c",
        "schema": "market",
        "extra": {"sslmode": "require"},
    }


def test_a_url_of_the_embedded_server_does_not_override_the_database_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As inside `make shell`, where it names the database of that shell."""
    monkeypatch.setenv("MLTRADING_DATABASE_URL", "postgresql://demo:x@127.0.0.1:23456/demo")

    env = _environment(tmp_path, market_database="live")

    assert env["MLTRADING_DATABASE_URL"].endswith("@127.0.0.1:23456/live")


@pytest.mark.parametrize("url", ["not a url", "postgresql+psycopg2://me:secret@localhost/market"])
def test_a_database_url_that_is_none_is_one_line_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("MLTRADING_DATABASE_URL", url)

    with pytest.raises(StandaloneError, match="MLTRADING_DATABASE_URL is no libpq URL") as caught:
        _environment(tmp_path)

    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_proxy_is_not_asked_for_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "intranet.example")

    assert _environment(tmp_path)["NO_PROXY"] == "intranet.example,127.0.0.1,localhost"


def test_the_web_port_is_chosen_once(tmp_path: Path) -> None:
    ports = {_environment(tmp_path)[HOST.replace("HOST", "PORT")] for _ in range(3)}

    assert len(ports) == 1


def test_a_connection_that_the_environment_gave_is_made_when_it_gives_it_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(airflow, "_fingerprint", lambda *_: "the same")
    ran: list[str] = []
    monkeypatch.setattr(airflow, "run", lambda env, *arguments, input="": ran.append(arguments[-1]))
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", "smtp://mail.example:25")

    def applied() -> bool:
        ran.clear()
        airflow.prepare_airflow(_environment(tmp_path), lambda line: None)
        return "include.mltrading.airflow.apply_settings" in ran

    assert [applied(), applied()] == [True, False]
    monkeypatch.delenv("AIRFLOW_CONN_SMTP_DEFAULT")
    assert [applied(), applied()] == [True, False]
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", "smtp://mail.example:25")
    assert not applied()
