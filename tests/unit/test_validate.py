"""`validate` finds what a run would trip over, all of it at once, and everything that starts calls it."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.mltrading.configuration.settings import PROJECT_ROOT, Settings, variable
from include.mltrading.operations import validate

Write = Callable[[Callable[[dict[str, Any]], object]], list[str]]


def content(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text())
    return loaded


def test_what_is_shipped_is_valid() -> None:
    assert validate.problems({}) == []


@pytest.fixture
def with_deployments(tmp_path: Path) -> Write:
    """The problems of the shipped deployments.yaml after a change."""

    def call(change: Callable[[dict[str, Any]], object]) -> list[str]:
        changed = content(Settings().deployments_file)
        change(changed)
        path = tmp_path / "deployments.yaml"
        path.write_text(yaml.safe_dump(changed))
        return validate.problems({"MLTRADING_DEPLOYMENTS_FILE": str(path)})

    return call


def special(**day: object) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["exchange"].update(special_days=[day])


COLLECTION, FEATURES = "yahoo-production-data-collection", "feature-engineering-production-subprocess"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c["schedule_types"]["market_hours"].update(cron="0 9-25 * * *"), "market_hours.cron"),
        (lambda c: c["schedule_types"]["market_hours"].update(timezone="New_York"), "market_hours.timezone"),
        (
            lambda c: c["schedule_types"]["market_hours_offset"].update(cron="5 10-16 * * 1-5"),
            f"deployments.{FEATURES} has not one tick after each of {COLLECTION}, as after Mon 09:00",
        ),
        (
            lambda c: c["schedule_types"]["market_hours_offset"].update(cron="*/30 9-16 * * 1-5"),
            "has not one tick",
        ),
        # In winter alone these are the same hours, and in summer alone the other is.
        (
            lambda c: c["schedule_types"]["market_hours_offset"].update(timezone="America/Jamaica"),
            "has not one tick",
        ),
        (
            lambda c: c["schedule_types"]["market_hours_offset"].update(cron="5 9-16 * 6-8 1-5"),
            "has not one tick",
        ),
        (lambda c: c["schedule_types"]["market_hours"].update(cron="0 9 31 2 *"), "market_hours.cron"),
        (
            lambda c: c["schedule_types"]["market_hours"].update(cron=None),
            "'market_hours' has no cron, and the features wait for its ticks",
        ),
        (
            lambda c: c["deployments"][COLLECTION].update(expected_runtime_minutes=45),
            f"deployments.{COLLECTION}.expected_runtime_minutes",
        ),
        (lambda c: c["pipeline"].update(gate_timeout_minutes=60), "pipeline.gate_timeout_minutes"),
        (lambda c: c["pipeline"].update(gate_timeout_minutes=5), "the gate would give up before it is late"),
        (lambda c: c["pipeline"].update(gate_missing_run_minutes=50), "pipeline.gate_missing_run_minutes"),
        (lambda c: c["pipeline"].update(gate_poke_seconds=3000), "pipeline.gate_poke_seconds"),
        (
            lambda c: c["pipeline"].update(finality_delay_minutes=90),
            "alerts.thresholds.missing_bars_after_minutes",
        ),
        (
            lambda c: c["deployments"][FEATURES].update(alert_threshold_hours=0.2),
            f"deployments.{FEATURES}.alert_threshold_hours",
        ),
        (lambda c: c["deployments"][FEATURES].update(priority=3), "priority 3 stands more than once"),
        (
            lambda c: c["dashboard"]["primary_deployments"].append(FEATURES),
            f"dashboard.primary_deployments: {FEATURES}",
        ),
        (lambda c: c["pipeline"].update(start_date="2999-01-01"), "pipeline.start_date 2999-01-01"),
        (special(day="2026-11-28", closed=True), "special_days: 2026-11-28, a Saturday, is no session"),
        (special(day="2026-11-26", closes="14:00"), "special_days: 2026-11-26, a Thursday, is no session"),
        (special(day="2062-11-24", closed=True), "special_days: 2062-11-24: 2062-11-24 to 2062-11-24 is out"),
        (special(day="2025-11-28", closes="14:00"), "2025-11-28: the session is planned from 09:30 to 13:00"),
        (special(day="2025-11-28", opens="13:00"), "2025-11-28: the session is planned from 09:30 to 13:00"),
        (lambda c: c["alerts"].update(addressees=["nobody"]), "alerts.addressees"),
        (lambda c: c["alerts"]["quiet_minutes"].pop("disk_low"), "quiet_minutes lacks disk_low"),
        (lambda c: c["alerts"]["thresholds"].update(disk_free_share=2), "alerts.thresholds.disk_free_share"),
    ],
)
def test_a_contradiction_in_the_deployments_is_named(
    with_deployments: Write, change: Callable[[dict[str, Any]], object], named: str
) -> None:
    [problem] = [text for text in with_deployments(change) if named in text]
    assert "deployments.yaml" in problem


def test_a_dag_that_only_people_start_may_take_more_than_a_week(with_deployments: Write) -> None:
    def change(changed: dict[str, Any]) -> None:
        changed["deployments"]["complete-data-and-features-ondemand"].update(
            expected_runtime_minutes=7000, alert_threshold_hours=200
        )

    assert with_deployments(change) == []


def test_a_collection_with_rare_ticks_has_a_cron(with_deployments: Write) -> None:
    def once_a_year(changed: dict[str, Any]) -> None:
        changed["schedule_types"]["market_hours"].update(cron="0 9 2 1 *")

    assert with_deployments(once_a_year) == []


@pytest.fixture
def with_airflow_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """The problems of the shipped airflow_settings.yaml after a change."""

    shipped = validate.DEFAULT_FILE

    def call(change: Callable[[dict[str, Any]], object]) -> list[str]:
        changed = content(shipped)
        change(changed["airflow"])
        path = tmp_path / "airflow_settings.yaml"
        path.write_text(yaml.safe_dump(changed))
        monkeypatch.setattr(validate, "DEFAULT_FILE", path)
        return validate.problems({})

    return call


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c["pools"].pop(0), "pool yahoo_api is missing"),
        (lambda c: c["pools"].pop(2), "pool sensors is missing"),
        (lambda c: c["pools"][0].update(pool_slot=50), "pool yahoo_api has 50 slots: give at most 5"),
        (lambda c: c["pools"][1].update(pool_slot=11), "pool market_db has 11 slots: give at most 10"),
        (lambda c: c["connections"].pop(0), "connection mltrading_db is missing"),
        (lambda c: c["connections"][1].update(conn_type="http"), "connection smtp_default has the type http"),
        (lambda c: c["pools"][0].update(slots=5), "unknown key airflow.pools.0.slots"),
    ],
)
def test_airflows_settings_are_held_against_the_code(
    with_airflow_settings: Write, change: Callable[[dict[str, Any]], object], named: str
) -> None:
    [problem] = with_airflow_settings(change)
    assert named in problem
    assert "airflow_settings.yaml: " in problem


def test_a_connection_by_uri_counts_by_its_scheme(with_airflow_settings: Write) -> None:
    def by_uri(changed: dict[str, Any]) -> None:
        changed["connections"][0] = {"conn_id": "mltrading_db", "conn_uri": "postgresql://u:p@h/d"}

    assert with_airflow_settings(by_uri) == []


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    symbols, deployments = tmp_path / "symbols.txt", tmp_path / "deployments.yaml"
    symbols.write_text("AAPL\n$\nMSFT\nAAPL\n")
    changed = content(Settings().deployments_file)
    changed["pipeline"].update(gate_timeout_minutes=61, gate_poke_seconds=9999)
    deployments.write_text(yaml.safe_dump(changed))
    found = validate.problems(
        {
            "MLTRADING_SYMBOLS_FILE": str(symbols),
            "MLTRADING_DEPLOYMENTS_FILE": str(deployments),
            "MLTRADING_SYMBOLS_PER_TASK": "none",
            "MLTRADING_YAHOO_URL": "yahoo",
            "MLTRADING_DATABASE_URL": "market",
            "MLTRADING_SMTP_URL": "mail:25",
            "MLTRADING_SYMBOL_FILE": "typo",
        }
    )
    for part in (
        "MLTRADING_SYMBOLS_PER_TASK='none'", "MLTRADING_YAHOO_URL='yahoo'", "MLTRADING_DATABASE_URL is not",
        "MLTRADING_SMTP_URL", "MLTRADING_SYMBOL_FILE: no such setting, did you mean MLTRADING_SYMBOLS_FILE?",
        "line 2: '$'", "line 4: AAPL stands already on line 1", "pipeline.gate_timeout_minutes",
        "pipeline.gate_poke_seconds",
    ):  # fmt: skip
        assert len([text for text in found if part in text]) == 1, part
    assert len(found) == 9


def said(found: list[str]) -> list[str]:
    """The problems without their remedies."""
    return [text.partition(".yaml: ")[2].partition(": ")[0] for text in found]


def test_first_everything_is_told_that_is_wrong_by_itself_then_what_is_wrong_between_values(
    with_deployments: Write,
) -> None:
    def between(changed: dict[str, Any]) -> None:
        changed["pipeline"].update(gate_poke_seconds=9999, start_date="2999-01-01")
        changed["schedule_types"]["market_hours"].update(cron="hourly", timezone="Gotham")
        changed["dashboard"].update(primary_deployments=[FEATURES, FEATURES])

    def both(changed: dict[str, Any]) -> None:
        between(changed)
        changed["pipeline"].update(retries=-1, owner="", retrys=3)
        changed["alerts"].update(adressees=["a@example.com"])
        changed["alerts"]["quiet_minutes"].pop("run_late")
        changed["alerts"]["thresholds"].update(disk_free_share=2)
        changed["deployments"].update(daily={"priority": 1})
        changed["deployments"][FEATURES].update(schedule_type="daily")
        changed["dashboard"].update(refresh_intervals=45)

    assert said(with_deployments(both)) == [
        "unknown key alerts.adressees", "unknown key deployments.daily", "unknown key pipeline.retrys",
        "dashboard.refresh_intervals is 45", "pipeline.owner is ''", "pipeline.retries is -1",
        "alerts.thresholds.disk_free_share is 2",
    ]  # fmt: skip
    assert said(with_deployments(between)) == [
        "schedule_types.market_hours.cron 'hourly' is no cron expression",
        "schedule_types.market_hours.timezone 'Gotham' is unknown",
        "pipeline.gate_poke_seconds 9999 must be less than the 50 minutes of gate_timeout_minutes",
        "dashboard.primary_deployments",
        "pipeline.start_date 2999-01-01 lies in the future",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["pipeline"].update(gate_timeout_minutes="long"),
        lambda c: c["pipeline"].pop("gate_timeout_minutes"),
        lambda c: c["alerts"].update(sla_factor=0),
        lambda c: c["deployments"][COLLECTION].update(expected_runtime_minutes=None),
        lambda c: c["schedule_types"].update(market_hours=9),
        lambda c: c["schedule_types"]["market_hours"].update(cron=9),
        lambda c: c["schedule_types"]["market_hours"].update(cron="hourly"),
        lambda c: c["schedule_types"]["market_hours"].update(timezone="Gotham"),
        lambda c: c["deployments"][COLLECTION].update(schedule_type="daily"),
        lambda c: c["deployments"].pop(COLLECTION),
        lambda c: c.update(pipeline=[]),
        lambda c: c.update(alerts="none"),
        lambda c: c["alerts"].update(quiet_minutes=5),
        lambda c: c["alerts"]["quiet_minutes"].update(run_late=-1),
        lambda c: c["dashboard"].update(primary_deployments="all"),
    ],
)
def test_a_single_wrong_value_is_a_single_problem(
    with_deployments: Write, change: Callable[[dict[str, Any]], object]
) -> None:
    assert len(with_deployments(change)) == 1


def test_airflows_settings_are_told_by_themselves_first(with_airflow_settings: Write) -> None:
    def between(changed: dict[str, Any]) -> None:
        changed["pools"][0].update(pool_slot=50)
        del changed["pools"][2]
        changed["connections"][0].update(conn_type="mysql")

    def both(changed: dict[str, Any]) -> None:
        between(changed)
        changed["pools"][1].update(pool_slot="ten")
        changed["connections"][0].update(conn_port=0)
        changed["connections"].append({**changed["connections"][1], "conn_extra": "{"})
        changed["variables"] = 3

    assert said(with_airflow_settings(both)) == [
        "airflow.connections.0.conn_port", "airflow.connections.2.conn_extra", "airflow.pools.1.pool_slot",
        "airflow.variables",
    ]  # fmt: skip
    assert said(with_airflow_settings(between)) == [
        "pool sensors is missing", "pool yahoo_api has 50 slots",
        "connection mltrading_db has the type mysql, the code needs postgres",
    ]  # fmt: skip

    def two_ways(changed: dict[str, Any]) -> None:
        changed["connections"][0].update(conn_uri="postgresql://h/d")

    [ways] = with_airflow_settings(two_ways)
    assert "connection mltrading_db has conn_uri, remove conn_host" in ways


@pytest.mark.parametrize(
    "line",
    [
        "conn_password: !S3cret", "conn_password: !!S3cret", "conn_password: 0x_ # S3cret",
        "conn_password: 2024-99-99 # S3cret", "conn_password: *S3cret", "conn_password: [S3cret",
        "conn_type: postgresql://u:S3cret@h/d", "conn_uri: S3cret", "conn_uri: //u@S3cret",
        "conn_uri: S3cret:x://h", "conn_port: S3cret", "conn_extra: S3cret", "conn_login: {S3cret: 1}",
    ],
)  # fmt: skip
def test_no_problem_of_airflows_settings_shows_a_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    text, key = validate.DEFAULT_FILE.read_text(), line.partition(":")[0]
    start = text.index("    - conn_id: mltrading_db\n")
    end = text.index("    - conn_id: smtp_default")
    lines = text[start:end].splitlines(keepends=True)
    keep = [] if key == "conn_uri" else [given for given in lines[1:] if f" {key}:" not in given]
    path = tmp_path / "airflow_settings.yaml"
    path.write_text("".join([text[:start], lines[0], *keep, f"      {line}\n", text[end:]]))
    monkeypatch.setattr(validate, "DEFAULT_FILE", path)
    [problem] = validate.problems({})
    assert "S3cret" not in problem
    assert "2024" not in problem
    assert "0.conn_" in problem or "in line" in problem


def test_a_settings_file_without_a_mapping_is_one_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "airflow_settings.yaml"
    monkeypatch.setattr(validate, "DEFAULT_FILE", path)
    for text in ("airflow: 3", "[airflow]", "airflow:", "{}"):
        path.write_text(text)
        assert len(validate.problems({})) == 1, text


def test_a_key_that_stands_twice_is_named_with_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "deployments.yaml"
    text = Settings().deployments_file.read_text()
    lines = text.splitlines()
    place = lines.index("pipeline:") + 1
    path.write_text(text.replace("pipeline:\n", "pipeline:\n  owner: somebody\n  retries: 9\n"))
    [owner, retries] = validate.problems({"MLTRADING_DEPLOYMENTS_FILE": str(path)})
    first, second = re.findall(r"line (\d+)", owner)
    assert int(second) == place + 1
    assert lines[int(first) - 3].lstrip().startswith("owner:")
    assert owner.startswith(f"{path}: ")
    assert "retries stands already in line" in retries


def test_a_key_that_stands_twice_counts_for_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, airflow = tmp_path / "deployments.yaml", tmp_path / "airflow_settings.yaml"
    text = Settings().deployments_file.read_text()
    text = text.replace("    priority: 1\n", "    priority: 1\n    priority: 2\n")
    path.write_text(f"{text}\nschedule_types: {{}}\n")
    airflow.write_text(f"{validate.DEFAULT_FILE.read_text()}\nairflow: {{}}\n")
    monkeypatch.setattr(validate, "DEFAULT_FILE", airflow)
    [schedules, twice, again] = validate.problems({"MLTRADING_DEPLOYMENTS_FILE": str(path)})
    assert "schedule_types stands already" in schedules
    assert "priority stands already" in twice
    assert "airflow stands already" in again


def test_wrong_symbols_and_variables_count_for_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "symbols.txt"
    many = "\n".join(f"S{number}" for number in range(1500))
    path.write_text(f"$\n{many}")
    [symbol] = validate.problems({"MLTRADING_SYMBOLS_FILE": str(path)})
    assert "'$' is not a ticker symbol" in symbol
    path.write_text(many)
    wrong = {"MLTRADING_SYMBOLS_PER_TASK": "5O", "MLTRADING_YAHOO_REQUESTS_PER_SECOND": "5,0"}
    found = validate.problems({"MLTRADING_SYMBOLS_FILE": str(path), **wrong})
    assert len(found) == 2
    assert not [text for text in found if "1500" in text]


def test_more_symbols_than_can_be_mapped_name_the_number_that_helps(tmp_path: Path) -> None:
    path = tmp_path / "symbols.txt"
    path.write_text("\n".join(f"S{number}" for number in range(1025)))
    environment = {"MLTRADING_SYMBOLS_FILE": str(path), "MLTRADING_YAHOO_REQUESTS_PER_SECOND": "100"}
    [problem] = validate.problems(environment)
    assert "MLTRADING_SYMBOLS_PER_TASK to at least 2" in problem
    assert validate.problems({**environment, "MLTRADING_SYMBOLS_PER_TASK": "2"}) == []


def test_every_variable_that_the_code_reads_is_known_and_no_other() -> None:
    read = {variable(setting) for setting in fields(Settings)}
    for path in (PROJECT_ROOT / "include").rglob("*.py"):
        if path.name != "validate.py":
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    read |= {node.value} & set(re.findall(r"^MLTRADING_[A-Z_]+[A-Z]$", node.value))
    assert read == validate.VARIABLES | validate.INTERNAL_VARIABLES


def test_everything_that_starts_validates_first() -> None:
    command = "python -m include.mltrading validate"
    for name in ("docker-compose.yaml", "docker-compose.override.yml"):
        text = (PROJECT_ROOT / name).read_text()
        assert text.index(command) < text.index("airflow db migrate"), name
    lint = (PROJECT_ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    assert "-m include.mltrading validate" in lint
    assert "make lint" in (PROJECT_ROOT / ".ci" / "run").read_text()
    for name, function in (
        ("include/standalone/run.py", "main"),
        ("include/mltrading/cli/task.py", "_prepare_database"),
    ):
        [body] = [
            node for node in ast.parse((PROJECT_ROOT / name).read_text()).body
            if isinstance(node, ast.FunctionDef) and node.name == function
        ]  # fmt: skip
        calls = [
            node.func.id for node in ast.walk(body)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        ]  # fmt: skip
        assert "validate" in calls, name


@pytest.mark.parametrize(
    "url",
    [
        "postgres:/mltrading:hush@host/db", "postgresql://mltrading:hu%shush@host/db",
        "postgresql://mltrading:hush\udcff@host/db",
    ],
)  # fmt: skip
def test_a_malformed_database_url_is_told_without_its_password(url: str) -> None:
    [problem] = validate.problems({"MLTRADING_DATABASE_URL": url})
    assert problem.startswith("MLTRADING_DATABASE_URL is not a libpq URL: write postgresql://")
    assert "hush" not in problem
