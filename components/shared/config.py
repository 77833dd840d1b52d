"""Frozen, validated records, and the settings of the steps."""

import difflib
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from yaml.constructor import ConstructorError

from components.shared.errors import UserError


class Record(BaseModel):
    """Immutable values; unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Config(Record):
    """Settings of one step: unknown keys and values out of range are refused.

    Attributes:
        renamed: Former names of settings and values, in all sections, with the present ones.
        removed: Former settings, in all sections, with the reason and what to do.
    """

    model_config = ConfigDict(allow_inf_nan=False)
    renamed: ClassVar[Mapping[str, str]] = {}
    removed: ClassVar[Mapping[str, str]] = {}

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_booleans_as_numbers(cls, value: object, info: ValidationInfo) -> object:
        # pydantic accepts true as 1, and in YAML yes and on are true; its strict mode would refuse
        # 1e-3 too, which PyYAML reads as a string
        wanted = set(_types(cls.model_fields[str(info.field_name)].annotation))
        given = value if isinstance(value, list | tuple) else [value]
        if {int, float} & wanted and bool not in wanted and any(isinstance(v, bool) for v in given):
            raise PydanticCustomError("number", "Input should be a number, not true or false")
        return value


ConfigT = TypeVar("ConfigT", bound=Config)


def parse_config(kind: type[ConfigT], text: str, name: str) -> ConfigT:
    """Reads settings from YAML (JSON is YAML too).

    Args:
        kind: Settings class, e.g. `Recipe`.
        text: YAML mapping; empty text returns the defaults.
        name: Name of the settings in messages, e.g. `train`.

    Raises:
        UserError: If the text is not a mapping or a setting is unknown or out of range.
    """
    try:
        loaded = load_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"{name}: the settings are not valid YAML: {error}") from error
    if loaded is None:
        loaded = {}
    if not isinstance(loaded, dict):
        raise UserError(f"{name}: the settings must be `key: value` pairs, not {text!r}")
    return build_config(kind, loaded, name)


def load_yaml(text: str) -> Any:  # noqa: ANN401  # YAML
    """Reads plain YAML and refuses duplicate keys, of which PyYAML would keep the last.

    Raises:
        yaml.YAMLError: If it is not valid or has a duplicate key, with the place.
    """
    return yaml.load(text, _OnceLoader)


class _OnceLoader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise ConstructorError(None, None, f"duplicate key {key.value!r}", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def build_config(kind: type[ConfigT], values: dict[str, object], name: str) -> ConfigT:
    """Builds settings from a mapping.

    Raises:
        UserError: If settings are unknown or out of range; all are named.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = _innermost(error.errors(include_url=False))
        messages = [_describe(problem, kind, name) for problem in problems]
        unknown = [problem["loc"][:-1] for problem in problems if _is_unknown(problem)]
        allowed = [_allowed(kind, name, section) for section in dict.fromkeys(unknown)]
        raise UserError(". ".join(["; ".join(messages), *allowed])) from error


def nearest(wanted: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Returns known names with a similar spelling, the nearest first.

    Args:
        wanted: Unknown name, in upper or lower case.
        known: Names to choose from.
        most: Largest number of names to return.
    """
    small = {name.lower(): name for name in known}
    found = difflib.get_close_matches(wanted.lower(), small, n=most, cutoff=0.65)
    return [small[name] for name in found]


def in_words(found: Sequence[str]) -> str:
    """Formats the nearest names for a message; empty if there are none."""
    return f" (nearest: {', '.join(found)})" if found else ""


def _innermost(problems: list[ErrorDetails]) -> list[ErrorDetails]:
    """Removes consequences of other problems: a list lacks the items that were refused in it."""
    inner = {problem["loc"][:depth] for problem in problems for depth in range(len(problem["loc"]))}
    return [problem for problem in problems if problem["loc"] not in inner]


def _describe(problem: ErrorDetails, kind: type[Config], name: str) -> str:
    key = ".".join([name, *map(str, problem["loc"])])
    if _is_unknown(problem):
        return _suggest(problem["loc"], kind, name)
    given = problem["input"]
    # the message of an inconsistent section names the settings
    shown = key if isinstance(given, dict) else f"{key}={given!r}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{shown}: {message}" + _nearest_value(problem, kind)


def _nearest_value(problem: ErrorDetails, kind: type[Config]) -> str:
    given = problem["input"]
    if problem["type"] != "literal_error" or not isinstance(given, str):
        return ""
    allowed = re.findall("'(.*?)'", problem["ctx"]["expected"])
    if kind.renamed.get(given) in allowed:
        return f" ({given} is now {kind.renamed[given]})"
    return in_words(nearest(given, allowed))


def _is_unknown(problem: ErrorDetails) -> bool:
    return problem["type"] == "extra_forbidden"


def _suggest(place: Sequence[int | str], kind: type[Config], name: str) -> str:
    *section, wanted = map(str, place)
    key = ".".join([name, *section, wanted])
    if wanted in kind.removed:
        return f"{key} was removed: {kind.removed[wanted]}"
    paths: dict[str, str] = {}
    for path in _paths(kind):
        paths.setdefault(path.rpartition(".")[2], path)
    siblings = _section(kind, place[:-1]).model_fields
    paths |= {own: ".".join([*section, own]) for own in siblings}
    present = kind.renamed.get(wanted, wanted)
    # a flat setting is from before the settings had sections
    was_flat = not section and paths.get(present, "").count(".") == 1
    if present in paths and (present != wanted or was_flat):
        return f"{key} is now {name}.{paths[present]}"
    found = [f"{name}.{paths[one]}" for one in nearest(wanted, paths)]
    return f"{key} is not a setting{in_words(found)}"


def _allowed(kind: type[Config], name: str, place: Sequence[int | str]) -> str:
    fields = _section(kind, place).model_fields
    return f"Settings of {'.'.join([name, *map(str, place)])}: {', '.join(fields)}"


def _section(kind: type[Config], place: Sequence[int | str]) -> type[Config]:
    """Returns the settings class at a place, e.g. `phases.0`, where 0 is a position in a list."""
    for key in place:
        kind = _sections(kind).get(str(key), kind)
    return kind


def _paths(kind: type[Config]) -> Iterator[str]:
    """Yields the settings with their sections, e.g. `schedule.epochs`."""
    sections = _sections(kind)
    for key in kind.model_fields:
        yield key
        yield from (f"{key}.{path}" for path in _paths(sections[key])) if key in sections else ()


def _sections(kind: type[Config]) -> dict[str, type[Config]]:
    return {
        key: found
        for key, field in kind.model_fields.items()
        for found in _types(field.annotation)
        if isinstance(found, type) and issubclass(found, Config)
    }


def _types(annotation: object) -> Iterator[object]:
    """Yields the parts of a type, e.g. `Phase` of `tuple[Phase, ...] | None`."""
    inner = get_args(annotation)
    yield from chain.from_iterable(map(_types, inner)) if inner else (annotation,)
