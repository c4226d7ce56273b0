"""YAML files as checked values, with every problem of a file in words that say what to do."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from include.mltrading.errors import UsageError

Model = TypeVar("Model", bound="Section")
_Item = TypeVar("_Item")
_Value = TypeVar("_Value")
_Place = tuple[int | str, ...]

# Every task's process reads a file: libyaml does it in a tenth of the time, where it is there.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# However long or deep a value is.
_SHORTENED = reprlib.Repr()
_SHORTENED.maxstring = _SHORTENED.maxlong = _SHORTENED.maxother = 80
_Collection = yaml.MappingNode | yaml.SequenceNode
_NO_NAME = 'in "<unicode string>",'  # what libyaml says of a text that it was not told the file of


class WrongValueError(AttributeError):
    """Raised where a value is read that is wrong in the file; what is wrong with it is told elsewhere."""


class Section(BaseModel):
    """A mapping of the file with known keys."""

    # Strict, or YAML's yes and on would be numbers.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def contradictions(self) -> Iterator[str]:
        """What is wrong between values. Raises WrongValueError where one of them is wrong by itself."""
        yield from ()

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        wrong = list(self.contradictions())
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    if not TYPE_CHECKING:  # type checkers would then let every name pass

        def __getattr__(self, name: str) -> Any:
            if name in type(self).model_fields:
                raise WrongValueError(name)
            return super().__getattr__(name)


def readable(items: Iterable[_Item], read: Callable[[_Item], _Value]) -> Iterator[_Value]:
    """What is read of each item, but for those of which it is wrong."""
    for item in items:
        with suppress(WrongValueError):
            yield read(item)


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


def read_yaml(path: Path, model: type[Model], *, secret: bool = False) -> tuple[Model, list[str]]:
    """The file's content as a model, and every problem, each with the path and a remedy.

    With problems, the model is what is right by itself; reading a value that is wrong or missing raises
    WrongValueError.
    secret: no problem quotes the file. Raises UsageError when it cannot be read as YAML at all.
    """
    try:
        return _read(path, model, secret)
    except RecursionError:
        raise UsageError(f"{path}: is nested too deeply; correct it") from None


def _read(path: Path, model: type[Model], secret: bool) -> tuple[Model, list[str]]:
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        repeated = {} if node is None else dict(_repeated(node))
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
    problems, wrong = list(repeated.values()), set[_Place]()
    try:
        value = model.model_validate(content)
    except ValidationError as error:
        unknown = _unknown(error)
        problems.extend(
            f"unknown key {_dotted(at)}: remove it or correct its spelling" for at in sorted(unknown)
        )
        content = _without(content, unknown)
        try:
            value = model.model_validate(content)
        except ValidationError as rest:
            problems.extend(_problems(rest, secret))
            wrong |= {item["loc"] for item in rest.errors()}
    if wrong or repeated:
        right = _RightPart(wrong, set(repeated))
        value = right.of(model, content)
        problems.extend(right.contradictions)
    return value, [f"{path}: {problem}" for problem in problems]


def load_yaml(path: Path, model: type[Model], *, secret: bool = False) -> Model:
    """The file's content as a model. Raises UsageError with every problem, one a line."""
    found, problems = read_yaml(path, model, secret=secret)
    if problems:
        raise UsageError("\n".join(problems))
    return found


def _said(error: Exception, secret: bool) -> str:
    if not secret:
        return f": {' '.join(str(error).replace(_NO_NAME, 'in').split())}"
    # Even the shortest of YAML's words may quote the value.
    mark = getattr(error, "problem_mark", None)
    return f" in line {mark.line + 1}" if mark else ""


def _repeated(node: Any, at: _Place = (), within: tuple[Any, ...] = ()) -> Iterator[tuple[_Place, str]]:
    """Where keys stand twice, of which YAML silently takes the last, and what to say.

    Raises YAMLError where a part contains itself.
    """
    if any(node is outer for outer in within):
        raise yaml.composer.ComposerError(None, None, "an alias stands within what it names", node.start_mark)
    seen: dict[str, int] = {}
    for number, item in enumerate(node.value if isinstance(node, _Collection) else ()):
        place: int | str = number
        if isinstance(node, yaml.MappingNode):
            key, item = item
            line = key.start_mark.line + 1
            place = str(key.value)
            if place in seen:
                yield (
                    (*at, place),
                    f"line {line}: {place} stands already in line {seen[place]}, remove one of them",
                )
            seen.setdefault(place, line)
        yield from _repeated(item, (*at, place), (*within, node))


def _unknown(error: ValidationError) -> set[tuple[str, ...]]:
    """Where the keys stand that the model does not know, as texts."""
    items = [(item["type"], tuple(map(str, item["loc"]))) for item in error.errors()]
    return {at for kind, at in items if kind in ("extra_forbidden", "invalid_key")} | {
        at[:-1] for _, at in items if at[-1:] == ("[key]",)
    }


def _problems(error: ValidationError, secret: bool) -> Iterator[str]:
    for item in error.errors():
        key = _dotted(item["loc"])
        if item["type"] == "missing":
            yield f"{key} {_REMEDIES['missing']}"
        elif item["type"] == "value_error":
            for line in item["msg"].removeprefix("Value error, ").splitlines():
                yield _at(item["loc"], line)
        else:
            words = _REMEDIES.get(item["type"], item["msg"]).format_map(item.get("ctx") or {})
            given = "" if secret else f" is {_short(item['input'])}"
            yield f"{key}{given}: {words}" if key else words


def _dotted(at: Iterable[int | str]) -> str:
    return ".".join(str(part) for part in at)


def _at(place: _Place, text: str) -> str:
    return f"{_dotted(place)}: {text}" if place else text


def _short(value: object) -> str:
    return "empty" if value is None else _SHORTENED.repr(value)


def _without(content: Any, unknown: set[tuple[str, ...]]) -> Any:
    """A copy of the content without the values at those places."""

    def kept(value: Any, at: tuple[str, ...]) -> Any:
        if isinstance(value, dict):
            inner = {key: (*at, str(int(key) if isinstance(key, bool) else key)) for key in value}
            return {key: kept(value[key], place) for key, place in inner.items() if place not in unknown}
        if isinstance(value, list):
            return [kept(item, (*at, str(number))) for number, item in enumerate(value)]
        return value

    return kept(content, ())


class _RightPart:
    """Builds what is right of a content; contradictions: what its parts find.

    wrong: where it is wrong; repeated: where nobody knows which of two is meant. Of lists the items that are
    right are left, and of each section its place.
    """

    def __init__(self, wrong: set[_Place], repeated: set[_Place]) -> None:
        self.wrong, self.repeated = wrong, repeated
        self.contradictions: list[str] = []

    def of(self, kind: Any, content: Any, at: _Place = ()) -> Any:
        """The content, which stands at that place, as a value of that type. Raises WrongValueError."""
        if at in self.repeated:
            raise WrongValueError
        if not any(place[: len(at)] == at for place in self.wrong | self.repeated):
            return TypeAdapter(kind).validate_python(content)
        if _is_section(kind):
            return self._section(kind, content, at)
        item = (get_args(kind) or (None,))[-1]
        if get_origin(kind) is dict and _is_section(item) and isinstance(content, dict):
            return {key: self.of(item, part, (*at, key)) for key, part in content.items()}
        if get_origin(kind) is list and isinstance(content, list):
            return list(
                readable(enumerate(content), lambda numbered: self.of(item, numbered[1], (*at, numbered[0])))
            )
        raise WrongValueError

    def _section(self, kind: type[Section], content: Any, at: _Place) -> Section:
        made = kind.model_construct()
        if not isinstance(content, dict):
            made.__dict__.clear()
            return made
        for name, field in kind.model_fields.items():
            if name in content:
                made.model_fields_set.add(name)
                made.__dict__.pop(name, None)  # the default
                with suppress(WrongValueError):
                    made.__dict__[name] = self.of(field.rebuild_annotation(), content[name], (*at, name))
        if at not in self.wrong:  # or it has been told
            with suppress(WrongValueError):
                for text in made.contradictions():
                    self.contradictions.append(_at(at, text))
        return made


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)
