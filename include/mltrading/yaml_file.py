"""YAML files as checked values, with every problem of a file in words that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from include.mltrading.errors import UsageError

Model = TypeVar("Model", bound=BaseModel)
_Place = tuple[int | str, ...]

# Every task's process reads a file: libyaml does it in a tenth of the time, where it is there.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LONGEST_VALUE = 80
_NO_NAME = 'in "<unicode string>",'  # what libyaml says of a text that it was not told the file of


class _Loader(_SafeLoader):  # type: ignore[misc]
    def construct_yaml_timestamp(self, node: Any) -> Any:
        """A date as YAML has it, or an error that tells where it stands."""
        try:
            return super().construct_yaml_timestamp(node)
        except ValueError as error:
            said = f"{node.value} is no date, {error}"
            raise yaml.constructor.ConstructorError(None, None, said, node.start_mark) from None


_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_yaml_timestamp)

# What to do about pydantic's types of error; in braces what it tells about the limit.
_REMEDIES = {
    "missing": "is missing, add it",
    "greater_than": "give more than {gt}",
    "greater_than_equal": "give at least {ge}",
    "less_than": "give less than {lt}",
    "less_than_equal": "give at most {le}",
    "int_type": "give a whole number",
    "int_parsing": "give a whole number",
    "int_from_float": "give a whole number",
    "float_type": "give a number",
    "float_parsing": "give a number",
    "finite_number": "give a finite number",
    "string_type": "give a text, in quotes if it looks like a number",
    "string_too_short": "give a text that is not empty",
    "list_type": "give a list",
    "too_short": "give at least {min_length} of them",
    "dict_type": "give keys with their values",
    "model_type": "give keys with their values",
    "literal_error": "give one of {expected}",
    "date_type": "give a date such as 2026-01-31",
    "date_parsing": "give a date such as 2026-01-31",
    "date_from_datetime_parsing": "give a date such as 2026-01-31",
    "date_from_datetime_inexact": "give a date such as 2026-01-31",
}


def read_yaml(path: Path, model: type[Model], *, secret: bool = False) -> tuple[Model | None, list[str]]:
    """The file's content as a model, and every problem, each with the path and a remedy.

    Unknown keys and keys that stand twice are problems that leave a value; all others leave None.
    secret: no problem quotes the file. Raises UsageError when it cannot be read as YAML at all.
    """
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        problems = [] if node is None else list(_repeated(node))
        content = None if node is None else loader.construct_document(node)
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror}); restore it from the repository, or name another"
        ) from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: is not valid YAML{_said(error, secret)}; correct it") from None
    if content is None:
        raise UsageError(f"{path}: holds nothing; restore it from the repository")
    value = None
    try:
        value = model.model_validate(content)
    except ValidationError as error:
        unknown = _unknown(error)
        problems.extend(
            f"unknown key {_dotted(at)}: remove it or correct its spelling" for at in sorted(unknown, key=str)
        )
        try:
            value = model.model_validate(_without(content, unknown))
        except ValidationError as rest:
            problems.extend(_problems(rest, secret))
    return value, [f"{path}: {problem}" for problem in problems]


def load_yaml(path: Path, model: type[Model], *, secret: bool = False) -> Model:
    """The file's content as a model. Raises UsageError with every problem, one a line."""
    found, problems = read_yaml(path, model, secret=secret)
    if found is None or problems:
        raise UsageError("\n".join(problems))
    return found


def _said(error: Exception, secret: bool) -> str:
    # The full text quotes the line.
    if not secret:
        return f": {' '.join(str(error).replace(_NO_NAME, 'in').split())}"
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"{f' in line {mark.line + 1}' if mark else ''}: {problem or 'unreadable'}"


def _repeated(node: Any, within: tuple[Any, ...] = ()) -> Iterator[str]:
    """YAML silently takes the last of two equal keys. Raises YAMLError where a part contains itself."""
    if any(node is outer for outer in within):
        raise yaml.composer.ComposerError(None, None, "an alias stands within what it names", node.start_mark)
    seen: dict[str, int] = {}
    for item in node.value if isinstance(node, yaml.MappingNode | yaml.SequenceNode) else ():
        if isinstance(node, yaml.MappingNode):
            key, item = item
            line = key.start_mark.line + 1
            name = str(key.value)
            if name in seen:
                yield f"line {line}: {name} stands already in line {seen[name]}, remove one of them"
            seen.setdefault(name, line)
        yield from _repeated(item, (*within, node))


def _unknown(error: ValidationError) -> set[_Place]:
    """Where the keys stand that the model does not know."""
    items = [(item["type"], item["loc"]) for item in error.errors()]
    return {at for kind, at in items if kind == "extra_forbidden"} | {
        at[:-1] for _, at in items if at[-1:] == ("[key]",)
    }


def _problems(error: ValidationError, secret: bool) -> Iterator[str]:
    for item in error.errors():
        key = _dotted(item["loc"])
        if item["type"] == "missing":
            yield f"{key} {_REMEDIES['missing']}"
        elif item["type"] == "value_error":
            for line in item["msg"].removeprefix("Value error, ").splitlines():
                yield f"{key}: {line}" if key else line
        else:
            words = _REMEDIES.get(item["type"], item["msg"]).format_map(item.get("ctx") or {})
            given = "" if secret else f" is {_short(item['input'])}"
            yield f"{key}{given}: {words}" if key else words


def _dotted(at: _Place) -> str:
    return ".".join(str(part) for part in at)


def _short(value: object) -> str:
    text = "empty" if value is None else repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]} …"


def _without(content: Any, unknown: set[_Place]) -> Any:
    """A copy of the content without the values at those places."""

    def kept(value: Any, at: _Place) -> Any:
        if isinstance(value, dict):
            return {key: kept(item, (*at, key)) for key, item in value.items() if (*at, key) not in unknown}
        if isinstance(value, list):
            return [kept(item, (*at, number)) for number, item in enumerate(value)]
        return value

    return kept(content, ())
