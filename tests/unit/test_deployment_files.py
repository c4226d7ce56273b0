"""The deployment files agree with each other, with the code and with Airflow; no container engine needed."""

from __future__ import annotations

import ast
import base64
import fnmatch
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from airflow.providers.celery.get_provider_info import get_provider_info
from airflow_lanes import on_2
from compose_files import COMPOSE, OVERRIDE, ROOT, VARIABLE, env_file, ignored_by_the_image, load, services

from include.mltrading.__main__ import _parser
from include.mltrading.airflow.apply_settings import main
from include.mltrading.configuration.airflow_settings import AirflowSettings, load_settings
from include.mltrading.errors import UsageError

SETTINGS = "airflow_settings.yaml"
# The services that `astro dev start` makes for Airflow 2 and that the override may therefore change.
ASTRO_SERVICES = {"postgres", "scheduler", "webserver", "triggerer"}


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def leaves(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Every scalar of a document with its dotted path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}.{index}")
    else:
        yield path, str(value)


def settings() -> AirflowSettings:
    return load_settings(ROOT / SETTINGS)


# airflow_settings.yaml


def test_the_settings_hold_the_pools_and_connections_of_the_design() -> None:
    assert {pool.pool_name: pool.pool_slot for pool in settings().pools} == {
        "yahoo_api": 5,
        "market_db": 5,
        "sensors": 2,
    }
    assert {item.conn_id: item.conn_type for item in settings().connections} == {
        "mltrading_db": "postgres",
        "smtp_default": "smtp",
    }


def test_the_settings_point_to_this_machine_only() -> None:
    assert {item.conn_host for item in settings().connections} == {"127.0.0.1"}


def test_extras_are_json_text_because_astro_drops_other_values() -> None:
    for connection in load(SETTINGS)["airflow"]["connections"]:
        assert isinstance(connection.get("conn_extra", ""), str), connection["conn_id"]
        # Astro passes it to a shell between single quotes.
        assert "'" not in connection.get("conn_extra", "")


def named_in_code(name: re.Pattern[str]) -> set[str]:
    """The text given to a keyword argument or a variable of that name in the DAGs and their helpers."""
    found = set()
    for file in [*(ROOT / "dags").glob("*.py"), *(ROOT / "include/mltrading/airflow").glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword):
                targets = [node.arg]
            elif isinstance(node, ast.Assign):
                targets = [target.id for target in node.targets if isinstance(target, ast.Name)]
            else:
                continue
            if isinstance(node.value, ast.Constant) and any(name.fullmatch(str(item)) for item in targets):
                found.add(str(node.value.value))
    return found


def test_the_dags_use_the_pools_of_the_settings_and_no_other() -> None:
    assert named_in_code(re.compile("pool")) == {pool.pool_name for pool in settings().pools}


def test_the_connections_named_in_the_code_are_in_the_settings() -> None:
    named = named_in_code(re.compile(r"\w*conn(ection)?_id", re.IGNORECASE))
    assert "mltrading_db" in named
    assert named <= {item.conn_id for item in settings().connections}


# What a wrong settings file is told


@pytest.fixture
def rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """Runs the command on a file with the given text and returns what stands on stderr."""

    def run(content: str) -> str:
        file = tmp_path / "settings.yaml"
        file.write_text(content, encoding="utf-8")
        assert main([str(file)]) == 2
        output = capsys.readouterr()
        assert output.out == ""
        assert all(line.startswith(f"error: {file}: ") for line in output.err.splitlines())
        return output.err

    return run


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("airflow: {pools: [{pool_name: a, pool_slots: 5}]}", "unknown key airflow.pools.0.pool_slots"),
        ("airflow: {conections: []}", "unknown key airflow.conections"),
        ("{airflow: {}, other: 1}", "unknown key other"),
        ("airflow: {pools: [{pool_name: a, pool_slot: 0}]}", "airflow.pools.0.pool_slot: give at least 1"),
        (
            "airflow: {pools: [{pool_name: a, pool_slot: '5'}]}",
            "airflow.pools.0.pool_slot: give a whole number",
        ),
        ("airflow: {pools: [{pool_name: a}]}", "airflow.pools.0.pool_slot is missing, add it"),
        ("airflow: {pools: [{pool_name: 5, pool_slot: 5}]}", "pool_name: give a text, in quotes if"),
        ("airflow: {pools: [{pool_name: a, pool_slot: 1}, {pool_name: a, pool_slot: 2}]}", "pool a stands"),
        ("airflow: {connections: [{conn_id: a}]}", "connection a needs either conn_uri or conn_type"),
        ("airflow: {connections: [{conn_id: a, conn_uri: 'x://', conn_host: b}]}", "remove conn_host"),
        ("airflow: {connections: [{conn_id: a, conn_type: b, conn_extra: '{'}]}", "conn_extra: is not JSON"),
        (
            "airflow: {connections: [{conn_id: a, conn_type: b, conn_extra: '[]'}]}",
            "conn_extra: give keys with",
        ),
        ("", "holds nothing; restore it"),
        ("other", "give keys with their values"),
        ("airflow: {pools: [], pools: []}", "line 1: pools stands already in line 1, remove one of them"),
        ("airflow:", "airflow: give keys with their values"),
    ],
)
def test_a_wrong_settings_file_is_refused_by_lines_that_name_the_key(
    content: str, said: str, rejected: Callable[[str], str]
) -> None:
    assert said in rejected(content)


@pytest.mark.parametrize(
    "content",
    [
        "airflow: {connections: [{conn_id: a, conn_type: b, conn_passwort: hunter2}]}",
        "airflow: {connections: [{conn_id: a, conn_type: b, conn_port: hunter2}]}",
        "airflow: {connections: [{conn_id: a, conn_uri: 'x://u:hunter2@h', conn_password: hunter2}]}",
        "airflow: {connections: [{conn_id: a, conn_type: b, conn_extra: 'hunter2'}]}",
        "airflow: {variables: [{variable_name: a, variable_value: [hunter2]}]}",
        "airflow:\n  conn_password: hunter2: x\n",
        "airflow:\n  conn_password: @hunter2\n",
    ],
)
def test_an_error_never_repeats_a_value(content: str, rejected: Callable[[str], str]) -> None:
    assert "hunter2" not in rejected(content)


def test_a_missing_settings_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.yaml: cannot be read \(No such file"):
        load_settings(tmp_path / "absent.yaml")


# The Compose files


def test_compose_has_every_service_of_the_set_up_on_one_network() -> None:
    assert set(services()) == {
        "postgres",
        "market-db",
        "mail",
        "redis",
        "airflow-worker",
        "backup",
        "init",
        "scheduler",
        "webserver",
        "triggerer",
    }
    assert all(service["networks"] == ["airflow"] for service in services().values())


def test_the_override_changes_no_service_that_astro_lacks() -> None:
    """A service without image and build would make `astro dev start` refuse the whole file."""
    for name, service in load(OVERRIDE)["services"].items():
        assert name in ASTRO_SERVICES or "image" in service, name


def volume_of(mount: str) -> str:
    """The named volume of a mount, "." for a file of the project."""
    source = VARIABLE.sub(r"\g<rest>", mount).split(":")[0]
    return "." if source.startswith("./") and (ROOT / source).is_file() else source


def test_services_volumes_and_networks_that_are_named_exist() -> None:
    declared = {**load(COMPOSE)["volumes"], **load(OVERRIDE)["volumes"]}
    for name, service in services().items():
        assert set(service.get("depends_on", ())) <= set(services()), name
        assert {volume_of(volume) for volume in service.get("volumes", ())} - {"."} <= set(declared), name
        assert set(service["networks"]) <= set(load(COMPOSE)["networks"]), name


def test_long_running_services_restart_and_tell_their_health() -> None:
    for name, service in services().items():
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}, name
        if name == "init":
            assert service["restart"] == "no"
        else:
            assert service["restart"] == "unless-stopped", name
            assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}, name


def test_airflow_starts_only_after_init_and_init_after_healthy_databases() -> None:
    for name in ("scheduler", "webserver", "triggerer"):
        assert services()[name]["depends_on"]["init"] == {"condition": "service_completed_successfully"}
    assert services()["init"]["depends_on"] == {
        "postgres": {"condition": "service_healthy"},
        "market-db": {"condition": "service_healthy"},
    }


def test_init_migrates_applies_the_settings_and_makes_the_admin() -> None:
    script = services()["init"]["command"][-1]
    steps = [
        "python -m include.mltrading validate",
        "airflow db migrate",
        "python -m include.mltrading.airflow.apply_settings",
        "python -m include.mltrading.airflow.apply_roles",
        "python -m include.mltrading migrate",
        "airflow users create",
    ]
    assert [script.index(step) for step in steps] == sorted(script.index(step) for step in steps)


def test_databases_are_postgresql_15_everywhere() -> None:
    assert {services()[name]["image"] for name in ("postgres", "market-db")} == {"postgres:15"}
    assert load(".astro/config.yaml")["postgres"]["tag"] == "15"


def test_every_published_port_is_on_the_loopback_interface() -> None:
    ports = [port for service in services().values() for port in service.get("ports", ())]
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_development_connections_reach_the_published_ports() -> None:
    """What the settings file says of this machine is what the override puts there without a .env."""
    published = {
        int(VARIABLE.sub(r"\g<rest>", port).split(":")[1])
        for port in (port for name in ("market-db", "mail") for port in services()[name]["ports"])
    }
    database, mail = settings().connections
    assert {database.conn_port, mail.conn_port} <= published
    market = services()["market-db"]["environment"]
    assert database.conn_password is not None
    assert (database.conn_login, database.conn_schema, database.conn_password.get_secret_value()) == (
        "mltrading",
        market["POSTGRES_DB"],
        VARIABLE.sub(r"\g<rest>", market["MARKET_DB_PASSWORD"]),
    )


def test_compose_has_no_literal_secret_and_refuses_to_start_without_one() -> None:
    for path, value in leaves(load(COMPOSE)):
        if re.search(r"PASSWORD$|_KEY$|SQL_ALCHEMY_CONN$|_URL$|_CONN_\w+$", path):
            if path.endswith("_CONN_SMTP_DEFAULT"):
                continue  # the mail catcher knows no password
            references = list(VARIABLE.finditer(value))
            assert references, path
            assert all(reference["kind"] == ":?" for reference in references), path
            assert all(reference["rest"] for reference in references), path
            # What is left of a URL has no password of its own.
            password = urlsplit(VARIABLE.sub("", value)).password
            assert not password, path


def test_a_default_of_the_override_is_out_of_reach_of_compose() -> None:
    """The override's development password serves Astro; docker-compose.yaml demands the same variable."""
    demanded = {item["name"] for item in VARIABLE.finditer(text(COMPOSE)) if item["kind"] == ":?"}
    for path, value in leaves(load(OVERRIDE)):
        for reference in VARIABLE.finditer(value):
            if "PASSWORD" in reference["name"]:
                assert reference["name"] in demanded, path


def test_the_init_service_and_the_override_name_the_same_market_database() -> None:
    init, scheduler = (services()[name]["environment"] for name in ("init", "scheduler"))
    for name in ("AIRFLOW_CONN_MLTRADING_DB", "MLTRADING_DATABASE_URL"):
        assert VARIABLE.sub("…", init[name]) == VARIABLE.sub("…", scheduler[name])
    address = urlsplit(VARIABLE.sub("x", scheduler["AIRFLOW_CONN_MLTRADING_DB"]))
    market = services()["market-db"]["environment"]
    assert (address.scheme, address.hostname, address.port) == ("postgresql", "market-db", 5432)
    assert (address.username, address.path) == ("mltrading", "/" + market["POSTGRES_DB"])


def test_mail_goes_to_the_catcher_with_the_options_of_the_settings() -> None:
    value = VARIABLE.sub(r"\g<rest>", services()["scheduler"]["environment"]["AIRFLOW_CONN_SMTP_DEFAULT"])
    address = urlsplit(value)
    assert (address.scheme, address.hostname, address.port) == ("smtp", "mail", 1025)
    extra = settings().connections[1].conn_extra
    assert {name: yaml.safe_load(item[0]) for name, item in parse_qs(address.query).items()} == extra


@on_2
def test_every_airflow_option_in_the_environment_is_one_airflow_knows() -> None:
    spec = importlib.util.find_spec("airflow")
    assert spec is not None
    assert spec.origin is not None
    options = yaml.safe_load((Path(spec.origin).parent / "config_templates/config.yml").read_text("utf-8"))
    options |= get_provider_info()["config"]
    checked = 0
    for name, service in services().items():
        for variable in service.get("environment", ()):
            if variable.startswith("AIRFLOW__"):
                _, section, option = variable.lower().split("__")
                assert option in options[section]["options"], f"{name}: {variable}"
                checked += 1
    assert checked > 10


@pytest.mark.parametrize("name", [COMPOSE, OVERRIDE])
def test_the_files_conform_to_the_compose_specification(name: str) -> None:
    schema = ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(ROOT / name)]
    done = subprocess.run(
        [sys.executable, "-m", schema[0].replace("-", "_"), *schema[1:]], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_astro_and_compose_make_the_roles_before_the_first_parse() -> None:
    script = services()["scheduler"]["command"][-1]
    steps = ["airflow db migrate", "apply_roles", "mltrading migrate", "exec airflow scheduler"]
    assert [script.index(step) for step in steps] == sorted(script.index(step) for step in steps)


def test_workers_and_their_queue_start_with_the_profile_only() -> None:
    profiles = {name: service["profiles"] for name, service in services().items() if "profiles" in service}
    assert profiles == {"redis": ["celery"], "airflow-worker": ["celery"], "backup": ["backup"]}
    worker, scheduler = (services()[name]["environment"] for name in ("airflow-worker", "scheduler"))
    for name, value in scheduler.items():
        assert VARIABLE.sub("…", worker[name]) == VARIABLE.sub("…", value), name
    # `--scale` refuses what only one container can have.
    assert not {"container_name", "hostname", "ports"} & set(services()["airflow-worker"])


# .env.example


def env_example() -> dict[str, str]:
    lines = [line for line in text(".env.example").splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_the_example_lists_every_variable_and_holds_no_secret() -> None:
    used = {
        item["name"]: item["kind"] for name in (OVERRIDE, COMPOSE) for item in VARIABLE.finditer(text(name))
    }
    assert set(env_example()) == {name for name, kind in used.items() if kind == ":?"}
    assert set(env_example().values()) == {""}
    for name in used:
        assert re.search(rf"\b{name}\b", text(".env.example")), name


def test_the_commands_in_the_example_make_a_complete_env_file(tmp_path: Path) -> None:
    made = env_file(tmp_path)
    assert set(made) == set(env_example())
    assert len(base64.urlsafe_b64decode(made.pop("AIRFLOW_FERNET_KEY"))) == 32
    assert len(set(made.values())) == 6
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in made.values())
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0


# The image


def dockerfile() -> list[str]:
    """Its instructions, comments gone and continued lines joined."""
    lines = [line for line in text("Dockerfile").splitlines() if line.strip() and not line.startswith("#")]
    return "\n".join(lines).replace("\\\n", " ").splitlines()


def test_the_image_does_not_run_astros_own_installation_first() -> None:
    """The ONBUILD steps of the plain tag refuse a requirements.txt that pins apache-airflow."""
    assert re.search(r"^apache-airflow==", text("requirements.txt"), re.MULTILINE)
    assert dockerfile()[0] == "FROM quay.io/astronomer/astro-runtime:13.8.0-base"


def test_files_the_image_copies_exist_and_are_not_ignored() -> None:
    copied = [
        source
        for line in dockerfile()
        if line.startswith("COPY")
        for source in line.split()[1:-1]
        if not source.startswith("--")
    ]
    assert {"packages.txt", "requirements.txt", "constraints.txt", "."} == set(copied)
    needed = [*copied, "airflow_settings.yaml", "sql", "dags", "plugins", "include", "tests"]
    ignored = ignored_by_the_image()
    for name in needed:
        assert (ROOT / name).exists(), name
        assert not any(fnmatch.fnmatch(name, pattern) for pattern in ignored), name


def test_secrets_and_local_state_stay_out_of_the_image() -> None:
    ignored = text(".dockerignore").splitlines()
    assert {".env", ".git", ".venv", ".state"} <= set(ignored)


def test_the_project_root_is_importable_and_the_image_runs_as_an_ordinary_user() -> None:
    instructions = dockerfile()
    folder = next(line.split()[1] for line in instructions if line.startswith("WORKDIR"))
    assert f"ENV PYTHONPATH={folder}" in instructions
    assert [line for line in instructions if line.startswith("USER")][-1] == "USER astro"
    logs = [
        volume for service in services().values() for volume in service.get("volumes", ()) if "logs" in volume
    ]
    assert set(logs) == {f"airflow-logs:{folder}/logs"}


def test_every_requirement_is_pinned_exactly_and_agrees_with_the_constraints() -> None:
    def pins(name: str) -> dict[str, str]:
        lines = [line.split("#")[0].split(";")[0].strip() for line in text(name).splitlines()]
        found = dict(
            re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?==([\w.+!]+)", line).groups() for line in lines if line
        )
        return {re.sub(r"[-_.]+", "-", key).lower(): value for key, value in found.items()}

    constraints = pins("constraints.txt")
    requirements = pins("requirements.txt")
    assert "apache-airflow" in requirements
    for name, version in requirements.items():
        assert constraints[name] == version or f"{name}=={version}" in text("constraints.txt"), name


def test_packages_are_plain_debian_names() -> None:
    names = [line.split("#")[0].strip() for line in text("packages.txt").splitlines()]
    assert [name for name in names if name] == ["postgresql-client"]


# The nightly backup

EXAMPLES = ROOT / "docs" / "examples"


@pytest.mark.parametrize("name", ["mltrading-backup.cron", "mltrading-backup.service", COMPOSE])
def test_every_nightly_example_keeps_seven_daily_and_four_weekly_backups(name: str) -> None:
    path = ROOT / name if name == COMPOSE else EXAMPLES / name
    found = re.search(
        r"^[^#\n]*?python -m include\.mltrading (backup [\w /.-]+)", path.read_text("utf-8"), re.M
    )
    assert found is not None
    options = _parser().parse_args(found[1].split())
    assert (options.keep_daily, options.keep_weekly) == (7, 4)
    assert options.directory.name in ("mltrading", "backups")


def test_the_cron_example_is_a_line_of_etc_cron_d() -> None:
    [line] = [
        line for line in (EXAMPLES / "mltrading-backup.cron").read_text().splitlines() if line[:1].isdigit()
    ]
    minute, hour, *rest, user, command = line.split(maxsplit=6)
    assert (minute, hour, rest, user) == ("30", "2", ["*", "*", "*"], "mltrading")
    assert "%" not in command  # cron would make it a new line


UNITS = ("*.service", "*.timer")


def test_systemd_starts_make_run_again_when_it_fails() -> None:
    unit = (EXAMPLES / "mltrading.service").read_text().splitlines()
    assert {"ExecStart=/usr/bin/make run", "Restart=on-failure", "KillMode=mixed"} <= set(unit)


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("SKIPPED: needs systemd-analyze")
    units = [shutil.copy(path, tmp_path) for pattern in UNITS for path in EXAMPLES.glob(pattern)]
    assert len(units) == 3
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_backups_stay_out_of_the_image_and_of_git() -> None:
    assert "backups" in text(".dockerignore").splitlines()
    assert "backups/" in text(".gitignore").splitlines()
    assert any("mkdir -m 700 -p backups" in line for line in dockerfile())
