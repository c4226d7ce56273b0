"""airflow_settings.yaml as checked values: Airflow's connections, pools and variables, in Astro's format."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, SecretStr

from include.mltrading.configuration.settings import PROJECT_ROOT
from include.mltrading.configuration.yaml_file import Section, load_yaml, more_than_once

DEFAULT_FILE = PROJECT_ROOT / "airflow_settings.yaml"

Text = Annotated[str, Field(min_length=1)]


class _Section(Section):
    # hide_input: an error's text must not repeat a password.
    model_config = ConfigDict(hide_input_in_errors=True)


def _type_name(text: str) -> str:
    # An URI under the wrong key would be quoted as the type, password and all.
    if text and not re.fullmatch(r"[a-z][a-z0-9_-]{0,40}", text):
        raise ValueError("is no type of connection, give Airflow's name of one such as postgres")
    return text


def _with_scheme(uri: SecretStr) -> SecretStr:
    if not re.match(r"[a-z][a-z0-9_+-]{0,40}://", uri.get_secret_value()):
        raise ValueError("has no scheme, give an URI such as postgresql://user:password@host/database")
    return uri


def _json_text(value: object) -> object:
    if value is None or value == "":
        return {}
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None


class ConnectionSetting(_Section):
    """One connection: conn_uri, or conn_type with the other fields; conn_extra is a JSON object."""

    conn_id: Text = Field(description="The connection's id, such as `mltrading_db`.")
    conn_type: Annotated[str, AfterValidator(_type_name)] | None = Field(
        default=None, description="Airflow's type of connection, such as `postgres` or `smtp`."
    )
    conn_host: str | None = Field(default=None, description="Host.")
    conn_schema: str | None = Field(default=None, description="Database of the server.")
    conn_login: str | None = Field(default=None, description="User.")
    conn_password: SecretStr | None = Field(default=None, description="Password, for development only.")
    conn_port: Annotated[int, Field(ge=1, le=65535)] | None = Field(default=None, description="Port.")
    conn_uri: Annotated[SecretStr, AfterValidator(_with_scheme)] | None = Field(
        default=None, description="The whole connection as one URI, instead of the other fields."
    )
    conn_extra: Annotated[dict[str, Any], BeforeValidator(_json_text)] = Field(
        default_factory=dict,
        description="Options as JSON text; `mltrading_db` takes those of libpq.",
    )

    def contradictions(self) -> Iterator[str]:
        """There is one way to say what it leads to."""
        if not self.conn_uri and not self.conn_type:
            yield f"connection {self.conn_id} needs either conn_uri or conn_type"
        others = [name for name in self.model_fields_set - {"conn_id", "conn_uri"} if getattr(self, name)]
        if self.conn_uri and others:
            yield f"connection {self.conn_id} has conn_uri, remove {', '.join(sorted(others))}"


class PoolSetting(_Section):
    """One pool and its number of slots."""

    pool_name: Text = Field(description="The pool's name.")
    pool_slot: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        description="Tasks that it runs at the same time."
    )
    pool_description: str = Field(default="", description="What it is for.")


class VariableSetting(_Section):
    """One Airflow variable."""

    variable_name: Text = Field(description="The variable's name.")
    variable_value: Text = Field(description="Its value.")


class AirflowSettings(_Section):
    """Everything under the key `airflow`."""

    connections: list[ConnectionSetting] = Field(default_factory=list, description="Airflow's connections.")
    pools: list[PoolSetting] = Field(default_factory=list, description="Airflow's pools.")
    variables: list[VariableSetting] = Field(default_factory=list, description="Airflow's variables.")

    def contradictions(self) -> Iterator[str]:
        """Names are unique."""
        for kind, key in ("connections", "conn_id"), ("pools", "pool_name"), ("variables", "variable_name"):
            for name in more_than_once(getattr(item, key) for item in getattr(self, kind)):
                yield f"{kind.removesuffix('s')} {name} stands there more than once"


class SettingsFile(_Section):
    """The whole file."""

    airflow: AirflowSettings


def load_settings(path: Path = DEFAULT_FILE) -> AirflowSettings:
    """The checked content of a settings file in Astro's format.

    Raises UsageError with each wrong key, one a line, and shows no value.
    """
    return load_yaml(path, SettingsFile, secret=True).airflow
