"""YAML files as checked values, with every problem of a file in words that say what to do."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from include.mltrading.errors import UsageError

Model = TypeVar("Model", bound="Section")
_Item = TypeVar("_Item")

# Every task's process reads a file: libyaml does it in a tenth of the time, where it is there.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# However long or deep a value is.
_SHORTENED = reprlib.Repr()
_SHORTENED.maxstring = _SHORTENED.maxlong = _SHORTENED.maxother = 80
_Collection = yaml.MappingNode | yaml.SequenceNode
_CONTRADICTION = "contradiction"
_NO_NAME = 'in "<unicode string>",'  # what libyaml says of a text that it was not told the file of


class Section(BaseModel):
    """A mapping of the file with known keys."""

    # Strict, or YAML's yes and on would be numbers.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def contradictions(self) -> Iterator[str]:
        """What is wrong between values that are right by themselves."""
        yield from ()

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        wrong = list(self.contradictions())
        if wrong:
            raise PydanticCustomError(_CONTRADICTION, "{lines}", {"lines": "\n".join(wrong)})
        return self


def more_than_once(items: Iterable[_Item]) -> list[_Item]:
    """The items that stand there more than once, each once."""
    return [item for item, count in Counter(items).items() if count > 1]


class _Loader(_SafeLoader):  # type: ignore[misc]
    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """A value as YAML has it, or an error that tells where it stands."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as error:
            kind = node.tag.rpartition(":")[2].replace("timestamp", "date")
            said = f"{_short(node.value)} is no {kind}, {error}"
            raise yaml.constructor.ConstructorError(None, None, said, node.start_mark) from None


# What to do about pydantic's types of error; in braces what it tells about the limit.
_REMEDIES = {
    "missing": "is missing, add it",
    "greater_than": "give more than {gt}",
    "greater_than_equal": "give at least {ge}",
    "less_than_equal": "give at most {le}",
    "int_type": "give a whole number",
    "int_parsing": "give a whole number",
    "int_from_float": "give a whole number",
    "float_type": "give a number",
    "float_parsing": "give a number",
    "string_type": "give a text, in quotes if it looks like a number",
    "string_too_short": "give a text that is not empty",
    "string_too_long": "give at most {max_length} characters",
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


def load_yaml(path: Path, model: type[Model], *, secret: bool = False) -> Model:
    """The file's content as a model.

    secret: no problem quotes the file. Raises UsageError with every problem of what is wrong by itself, one
    a line, with the path and a remedy; where nothing is, with what is wrong between values.
    """
    try:
        content, repeated = _content(path, secret)
    except RecursionError:
        raise UsageError(f"{path}: is nested too deeply; correct it") from None
    try:
        value = model.model_validate(content)
        problems = repeated
    except ValidationError as error:
        problems = [*repeated, *_problems(error.errors(), secret, alone=not repeated)]
    if problems:
        raise UsageError("\n".join(f"{path}: {problem}" for problem in problems))
    return value


def _content(path: Path, secret: bool) -> tuple[Any, list[str]]:
    """The file's content, and which keys stand twice. Raises UsageError when it cannot be read as YAML."""
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        repeated = [] if node is None else list(_repeated(node))
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
    return content, repeated


def _said(error: Exception, secret: bool) -> str:
    if not secret:
        return f": {' '.join(str(error).replace(_NO_NAME, 'in').split())}"
    # Even the shortest of YAML's words may quote the value.
    mark = getattr(error, "problem_mark", None)
    return f" in line {mark.line + 1}" if mark else ""


def _repeated(node: Any, within: tuple[Any, ...] = ()) -> Iterator[str]:
    """Keys that stand twice, of which YAML silently takes the last.

    Raises YAMLError where a part contains itself.
    """
    if any(node is outer for outer in within):
        raise yaml.composer.ComposerError(None, None, "an alias stands within what it names", node.start_mark)
    items = node.value if isinstance(node, _Collection) else []
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, _ in items:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen:
                yield f"line {line}: {name} stands already in line {seen[name]}, remove one of them"
            seen.setdefault(name, line)
        items = [value for _, value in items]
    for item in items:
        yield from _repeated(item, (*within, node))


def _problems(errors: list[ErrorDetails], secret: bool, *, alone: bool) -> Iterator[str]:
    """The errors in words; alone: whether nothing else is wrong with the file."""
    unknown = {place for item in errors if (place := _unknown(item)) is not None}
    for place in sorted(unknown, key=_dotted):
        yield f"unknown key {_dotted(place)}: remove it or correct its spelling"
    # What stands within an unknown key is no problem of its own.
    known = [item for item in errors if not any(item["loc"][: len(place)] == place for place in unknown)]
    wrong = [item for item in known if item["type"] != _CONTRADICTION]
    for item in known if alone and not unknown and not wrong else wrong:
        yield from _words(item, secret)


def _unknown(item: ErrorDetails) -> tuple[int | str, ...] | None:
    """Where a key stands that the model does not know; None where the error is another."""
    if item["loc"][-1:] == ("[key]",):
        return item["loc"][:-1]
    return item["loc"] if item["type"] in ("extra_forbidden", "invalid_key") else None


def _words(item: ErrorDetails, secret: bool) -> Iterator[str]:
    key = _dotted(item["loc"])
    if item["type"] == "missing":
        yield f"{key} {_REMEDIES['missing']}"
    elif item["type"] in ("value_error", _CONTRADICTION):
        for line in item["msg"].removeprefix("Value error, ").splitlines():
            yield f"{key}: {line}" if key else line
    else:
        words = _REMEDIES.get(item["type"], item["msg"]).format_map(item.get("ctx") or {})
        given = "" if secret else f" is {_short(item['input'])}"
        yield f"{key}{given}: {words}" if key else words


def _dotted(at: Iterable[int | str]) -> str:
    return ".".join(str(part) for part in at)


def _short(value: object) -> str:
    return "empty" if value is None else _SHORTENED.repr(value)
