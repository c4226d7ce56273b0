"""airflow_settings.yaml as checked values: Airflow's connections, pools and variables, in Astro's format."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from include.mltrading.errors import UsageError
from include.mltrading.settings import PROJECT_ROOT

DEFAULT_FILE = PROJECT_ROOT / "airflow_settings.yaml"

Text = Annotated[str, Field(min_length=1)]


class _Section(BaseModel):
    # hide_input: an error's text must not repeat a password.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class ConnectionSetting(_Section):
    """One connection: conn_uri, or conn_type with the other fields; conn_extra is a JSON object."""

    conn_id: Text
    conn_type: str | None = None
    conn_host: str | None = None
    conn_schema: str | None = None
    conn_login: str | None = None
    conn_password: SecretStr | None = None
    conn_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    conn_uri: SecretStr | None = None
    conn_extra: dict[str, Any] = {}

    @field_validator("conn_extra", mode="before")
    @classmethod
    def _json_text_is_an_object(cls, value: object) -> object:
        if value is None or value == "":
            return {}
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"is not JSON: {error}") from None

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> ConnectionSetting:
        if bool(self.conn_uri) == bool(self.conn_type):
            raise ValueError(f"connection {self.conn_id} needs either conn_uri or conn_type")
        others = [name for name in self.model_fields_set - {"conn_id", "conn_uri"} if getattr(self, name)]
        if self.conn_uri and others:
            raise ValueError(f"connection {self.conn_id} has conn_uri, remove {', '.join(sorted(others))}")
        return self


class PoolSetting(_Section):
    """One pool and its number of slots."""

    pool_name: Text
    pool_slot: Annotated[int, Field(ge=1)]
    pool_description: str = ""


class VariableSetting(_Section):
    """One Airflow variable."""

    variable_name: Text
    variable_value: Text


class AirflowSettings(_Section):
    """Everything under the key `airflow`."""

    connections: list[ConnectionSetting] = []
    pools: list[PoolSetting] = []
    variables: list[VariableSetting] = []

    @model_validator(mode="after")
    def _names_are_unique(self) -> AirflowSettings:
        names = Counter(
            [f"connection {item.conn_id}" for item in self.connections]
            + [f"pool {item.pool_name}" for item in self.pools]
            + [f"variable {item.variable_name}" for item in self.variables]
        )
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise ValueError(f"{', '.join(twice)} stands there more than once")
        return self


class _File(_Section):
    airflow: AirflowSettings


def load_settings(path: Path = DEFAULT_FILE) -> AirflowSettings:
    """The checked content of a settings file in Astro's format.

    Raises UsageError, in one line that names the file and each wrong key and shows no value.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); name a settings file") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except yaml.YAMLError as error:
        # The full text would quote the line, and with it a password.
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise UsageError(f"{path}: is not valid YAML{where}: {problem or 'unreadable'}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path}: has no key airflow; write connections, pools and variables below it")
    try:
        return _File.model_validate(content).airflow
    except ValidationError as error:
        problems = "; ".join(_in_words(dict(item)) for item in error.errors(include_input=False))
        raise UsageError(f"{path}: {problems}") from None


def _in_words(item: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"unknown key {key}: remove it or correct its spelling"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{key}: {message}" if key else message
