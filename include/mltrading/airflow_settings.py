"""airflow_settings.yaml as checked values: Airflow's connections, pools and variables, in Astro's format."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from include.mltrading.settings import PROJECT_ROOT
from include.mltrading.yaml_file import load_yaml, read_yaml

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


def read_settings(path: Path) -> tuple[AirflowSettings | None, list[str]]:
    """The content of a settings file in Astro's format, and every problem; no problem shows a value.

    Raises UsageError when the file cannot be read as YAML at all.
    """
    found, problems = read_yaml(path, _File, secret=True)
    return None if found is None else found.airflow, problems


def load_settings(path: Path = DEFAULT_FILE) -> AirflowSettings:
    """The checked content of a settings file in Astro's format.

    Raises UsageError with each wrong key, one a line, and shows no value.
    """
    return load_yaml(path, _File, secret=True).airflow
