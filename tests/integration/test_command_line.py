"""The command line as people meet it: errors name the thing and the remedy, and nothing stored is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.market_simulator import MarketSimulator
from include.mltrading.configuration.settings import Settings

pytestmark = pytest.mark.integration

Cli = Callable[..., Any]


@pytest.fixture
def environment(database: str, simulator: MarketSimulator) -> dict[str, str]:
    return {
        "MLTRADING_DATABASE_URL": database,
        "MLTRADING_YAHOO_URL": simulator.url,
        "MLTRADING_YAHOO_REQUESTS_PER_SECOND": "100",
    }


def one_line_error(finished: Any, code: int, *names: str) -> None:
    assert finished.code == code, finished.err
    [line] = finished.err.splitlines()
    assert line.startswith("error: ")
    for name in names:
        assert name in line
    assert finished.out == ""


def test_from_an_empty_database_to_features(
    cli: Cli, empty_database: str, simulator: MarketSimulator
) -> None:
    environment = {
        "MLTRADING_DATABASE_URL": empty_database,
        "MLTRADING_YAHOO_URL": simulator.url,
        "MLTRADING_YAHOO_REQUESTS_PER_SECOND": "100",
    }
    assert cli("migrate", **environment).out.startswith("applied 0001_initial\n")
    assert cli("migrate", "--json", **environment).document == {"applied": []}
    collected = cli("collect", "--symbols", "AAPL,brk.b", "--period", "1mo", "--json", **environment)
    assert collected.code == 0, collected.err
    assert {symbol["symbol"]: symbol["status"] for symbol in collected.document["symbols"]} == {
        "AAPL": "ok",
        "BRK-B": "ok",
    }
    computed = cli("features", "--symbols", "AAPL,BRK-B", "--json", **environment)
    assert computed.code == 0, computed.err
    rows = {symbol["symbol"]: symbol["rows"] for symbol in computed.document["symbols"]}
    with psycopg.connect(empty_database) as connection:
        counted = connection.execute(
            "SELECT symbol, count(*) FROM market_data WHERE is_final GROUP BY symbol"
        ).fetchall()
    assert rows == dict(counted)
    story = cli("check", "--run", computed.document["run"], "--json", **environment)
    assert story.code == 0
    assert (story.document["served"], story.document["failed"]) == (2, [])
    assert cli("check", "--recompute", "5", **environment).code == 0
    again = cli("features", "--symbols", "AAPL", **environment)
    assert again.out.splitlines()[-1].startswith("1 of 1 symbols served, 0 rows; run ")
    one_line_error(
        cli("features", "--symbols", "AAPL,NOPE,MSFT", **environment), 2, "no bar is stored of MSFT,NOPE"
    )


def test_a_failed_symbol_makes_exit_code_1_and_its_story_tells_why(
    cli: Cli, environment: dict[str, str]
) -> None:
    finished = cli("collect", "--symbols", "AAPL,ZZTOP", "--period", "1mo", "--json", **environment)
    assert finished.code == 1
    by_symbol = {symbol["symbol"]: symbol for symbol in finished.document["symbols"]}
    assert by_symbol["AAPL"]["status"] == "ok"
    assert "ZZTOP" in by_symbol["ZZTOP"]["error"]
    story = cli("check", "--run", finished.document["run"], **environment)
    assert story.code == 1
    assert "ZZTOP" in story.out
    assert "1 served, 1 failed" in story.out


@pytest.mark.parametrize("text", ["'; DROP TABLE market_data;--", "$(touch x)", "A\nB", "AAPL,,MSFT", ""])
def test_a_malformed_symbol_is_refused_by_name(cli: Cli, environment: dict[str, str], text: str) -> None:
    for command in ("collect", "features"):
        one_line_error(cli(command, "--symbols", text, **environment), 2, "ticker symbol")
    with psycopg.connect(environment["MLTRADING_DATABASE_URL"]) as connection:
        assert connection.execute("SELECT count(*) FROM processing_history").fetchone() == (0,)


def test_a_symbol_that_looks_like_an_option_is_refused(cli: Cli, environment: dict[str, str]) -> None:
    one_line_error(cli("collect", "--symbols=-rf", **environment), 2, "'-rf'", "ticker symbol")
    assert cli("collect", "--symbols", "-rf", **environment).code == 2


def test_an_empty_symbols_file_is_refused(cli: Cli, environment: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "none.txt"
    path.write_text("# nothing here\n")
    for command in ("collect", "features", "check", "validate"):
        finished = cli(command, **environment, MLTRADING_SYMBOLS_FILE=str(path))
        one_line_error(finished, 2, str(path), "holds no symbol")


@pytest.mark.parametrize("arguments", [("migrate",), ("collect",), ("features",), ("check",)])
def test_without_a_database_the_variables_are_named(cli: Cli, arguments: tuple[str, ...]) -> None:
    one_line_error(cli(*arguments), 2, "MLTRADING_DATABASE_URL", "PGHOST")


def test_a_database_that_is_down_is_named_with_its_address(cli: Cli) -> None:
    finished = cli("features", MLTRADING_DATABASE_URL="postgresql://me:secret@127.0.0.1:9/market")
    one_line_error(finished, 1, "127.0.0.1:9", "'market'", "start the server")
    assert "secret" not in finished.err


def test_a_wrong_password_is_a_configuration_error_and_is_not_shown(cli: Cli, database: str) -> None:
    user, _, rest = database.removeprefix("postgresql://").partition(":")
    url = f"postgresql://{user}:wrong-secret@{rest.partition('@')[2]}"
    finished = cli("features", MLTRADING_DATABASE_URL=url)
    one_line_error(finished, 2, "password authentication failed", "MLTRADING_DATABASE_URL", "mltrading_db")
    assert "wrong-secret" not in finished.err


def test_a_missing_database_is_a_configuration_error(cli: Cli, database: str) -> None:
    url = f"{database.rpartition('/')[0]}/no_such_market"
    one_line_error(cli("check", MLTRADING_DATABASE_URL=url), 2, "no_such_market", "does not exist")


@pytest.mark.parametrize(
    "url",
    ["localhost market", "postgresql+psycopg2://me:secret@localhost/market", "postgresql://me:secret%@h/m"],
)
def test_a_url_that_is_none_is_refused_without_showing_it(cli: Cli, url: str) -> None:
    finished = cli("check", MLTRADING_DATABASE_URL=url)
    one_line_error(finished, 2, "MLTRADING_DATABASE_URL", "postgresql://user:password@host")
    assert "secret" not in finished.err


def test_with_json_a_failed_command_gives_one_document_too(cli: Cli, environment: dict[str, str]) -> None:
    finished = cli("features", "--symbols", "no symbol", "--json", **environment)
    assert finished.code == 2
    assert finished.err == f"error: {finished.document['error']}\n"
    assert "'no symbol'" in finished.document["error"]


def test_with_json_a_database_that_fails_gives_one_document_too(
    cli: Cli, environment: dict[str, str]
) -> None:
    with psycopg.connect(environment["MLTRADING_DATABASE_URL"], autocommit=True) as connection:
        connection.execute("ALTER TABLE quarantined_bars RENAME TO elsewhere")
    finished = cli("quarantine", "list", "--json", **environment)
    assert finished.code == 2
    assert list(finished.document) == ["error"]
    assert "quarantined_bars" in finished.document["error"]


def test_an_empty_run_id_is_no_run(cli: Cli, environment: dict[str, str]) -> None:
    one_line_error(cli("check", "--run", "", **environment), 2, "no run ''")


@pytest.mark.parametrize("days", ["nan", "inf", "1e12", "-1", "0"])
def test_a_look_back_of_no_days_is_refused(cli: Cli, environment: dict[str, str], days: str) -> None:
    one_line_error(cli("alerts", "list", "--days", days, **environment), 2, "--days", "give")


@pytest.mark.parametrize("count", ["0", "-1", "99999999999999999999"])
def test_a_number_of_symbols_that_cannot_be_is_refused(
    cli: Cli, environment: dict[str, str], count: str
) -> None:
    one_line_error(cli("check", "--recompute", count, **environment), 2, f"--recompute {count}", "from 1 to")


def test_an_old_schema_names_the_remedy(
    cli: Cli, empty_database: str, simulator: MarketSimulator, environment: dict[str, str]
) -> None:
    environment = {**environment, "MLTRADING_DATABASE_URL": empty_database}
    for arguments in (("collect", "--symbols", "AAPL"), ("features", "--symbols", "AAPL"), ("check",)):
        one_line_error(cli(*arguments, **environment), 2, "python -m include.mltrading migrate")
    assert simulator.statistics()["total"] == 0


def test_a_simulator_that_is_down_is_named_and_nothing_is_lost(
    cli: Cli, environment: dict[str, str], simulator: MarketSimulator
) -> None:
    cli("collect", "--symbols", "AAPL", "--period", "1mo", **environment)
    with psycopg.connect(environment["MLTRADING_DATABASE_URL"]) as connection:
        before = connection.execute("SELECT count(*) FROM market_data").fetchone()
        address = simulator.url.removeprefix("http://")
        simulator.close()
        finished = cli("collect", "--symbols", "AAPL", **environment)
        assert finished.code == 1
        assert address in finished.out
        assert connection.execute("SELECT count(*) FROM market_data").fetchone() == before
        assert before != (0,)


def test_a_start_after_the_end_is_refused_naming_both(cli: Cli, environment: dict[str, str]) -> None:
    finished = cli("collect", "--start", "2026-02-01", "--end", "2026-01-01", **environment)
    one_line_error(finished, 2, "start 2026-02-01", "end 2026-01-01")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--sessions", "0"), "--sessions 0"),
        (("--sessions", "61"), "--sessions 61"),
        (("--period", "5y"), "period '5y'"),
        (("--end", "2090-01-01"), "--end 2090-01-01 lies in the future"),
        (("--start", "tomorrow"), "--start 'tomorrow'"),
        (("--start", "0001-01-01T00:00+14:00"), "--start '0001-01-01T00:00+14:00': give a date of the years"),
        (("--start", "2026-01-05", "--sessions", "3"), "--start goes without"),
        (("--symbols", "AAPL", "--start", "2000-01-01", "--end", "2000-02-01"), "serves hourly bars only"),
    ],
)
def test_a_wrong_window_is_refused_by_its_argument(
    cli: Cli, environment: dict[str, str], arguments: tuple[str, ...], named: str
) -> None:
    finished = cli("collect", *arguments, **environment)
    assert finished.code == 2
    assert named in finished.err + finished.out


def test_an_unknown_key_in_the_deployments_file_is_named(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "deployments.yaml"
    path.write_text(Settings().deployments_file.read_text() + "\nsurprise: 1\n")
    finished = cli("validate", MLTRADING_DEPLOYMENTS_FILE=str(path))
    one_line_error(finished, 2, str(path), "unknown key surprise", "remove it")


def test_validation_tells_all_problems_at_once(cli: Cli, tmp_path: Path) -> None:
    symbols, deployments = tmp_path / "symbols.txt", tmp_path / "deployments.yaml"
    symbols.write_text("AAPL\nAAPL\n")
    text = Settings().deployments_file.read_text()
    text = text.replace('cron: "0 9-16 * * 1-5"', 'cron: "every hour"')
    deployments.write_text(text.replace('timezone: "UTC"', "timezone: Mars"))
    finished = cli(
        "validate", MLTRADING_SYMBOLS_FILE=str(symbols), MLTRADING_DEPLOYMENTS_FILE=str(deployments)
    )
    assert finished.code == 2
    assert "line 2" in finished.err
    assert f"{deployments}: schedule_types.market_hours.cron 'every hour' is no cron" in finished.err
    assert f"{deployments}: schedule_types.manual.timezone 'Mars' is unknown: give a name" in finished.err


def test_a_wrong_setting_is_named(cli: Cli) -> None:
    one_line_error(cli("validate", MLTRADING_SYMBOLS_PER_TASK="0"), 2, "MLTRADING_SYMBOLS_PER_TASK='0'")


def test_real_bars_are_not_mixed_into_a_simulated_database(
    cli: Cli, environment: dict[str, str], database: str
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("INSERT INTO data_source (source) VALUES ('yahoo')")
        finished = cli("collect", "--symbols", "AAPL", "--period", "1mo", **environment)
        assert finished.code == 2
        assert "this database holds yahoo data" in finished.out
        assert connection.execute("SELECT count(*) FROM market_data").fetchone() == (0,)


@pytest.mark.parametrize("document", ["", "{}", "[]", json.dumps({"step": "x", "run": {}, "symbols": []})])
def test_a_task_without_its_document_is_a_usage_error(cli: Cli, document: str) -> None:
    one_line_error(cli("task", MLTRADING_TASK=document), 2, "MLTRADING_TASK")


def test_help_lists_the_commands_and_exit_codes(cli: Cli) -> None:
    finished = cli("--help")
    assert finished.code == 0
    for word in ("migrate", "collect", "features", "check", "validate", "Exit codes"):
        assert word in finished.out


def task(step: str, symbols: list[str], **params: object) -> str:
    run = {
        "dag_id": "dag", "run_id": "run", "run_type": "manual", "try_number": 1,
        "window_end": "2026-01-21T16:00:00+00:00",
    }  # fmt: skip
    return json.dumps({"step": step, "symbols": symbols, "params": params, "run": run})


def test_a_failure_that_would_come_again_is_told_by_its_exit_code(
    cli: Cli, environment: dict[str, str], simulator: MarketSimulator
) -> None:
    unknown = cli("task", **environment, MLTRADING_TASK=task("collect_symbol", ["ZZTOP"], data_period="3d"))
    assert unknown.code == 65
    verdict = cli("task", **environment, MLTRADING_TASK=task("publish_bars", ["ZZTOP"]))
    assert verdict.code == 65
    assert "error: too few symbols" in verdict.out
    simulator.fault("cut")
    passing = cli("task", **environment, MLTRADING_TASK=task("collect_symbol", ["AAPL"], data_period="3d"))
    assert passing.code == 1


@pytest.mark.parametrize(
    ("command", "option", "words"),
    [
        ("features", "lock_timeout", "lock timeout; another session holds what this one needs"),
        ("task", "statement_timeout", "statement timeout; do this again when the database is less busy"),
    ],
)
def test_a_statement_that_the_database_cancels_is_told_in_one_line(
    cli: Cli, environment: dict[str, str], database: str, command: str, option: str, words: str
) -> None:
    hasty = {**environment, "MLTRADING_DATABASE_URL": f"{database}?options=-c%20{option}%3D300ms"}
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE schema_migrations")
        collecting = task("collect_symbol", ["AAPL"], data_period="3d")
        one_line_error(cli(command, **hasty, MLTRADING_TASK=collecting), 1, words)
