"""Frozen, validated records, and the settings in whose form every step receives its options."""

import difflib
from collections.abc import Iterator, Sequence
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from components.shared.errors import UserError


class Record(BaseModel):
    """Values that belong together; they do not change, and unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Config(Record):
    """Settings of one step: unknown keys and values out of range are refused."""

    model_config = ConfigDict(allow_inf_nan=False)


ConfigT = TypeVar("ConfigT", bound=Config)


def parse_config(kind: type[ConfigT], text: str, name: str) -> ConfigT:
    """Reads settings from YAML (JSON is YAML too).

    Args:
        kind: The settings class, e.g. `Recipe`.
        text: A YAML mapping; empty text gives the defaults.
        name: What the settings are called in a message, e.g. `train`.

    Raises:
        UserError: If the text is not a mapping or a setting is unknown or out of range.
    """
    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{name}: the settings are not valid YAML: {error}") from error
    if loaded is None:
        loaded = {}
    if not isinstance(loaded, dict):
        raise UserError(f"{name}: the settings must be `key: value` pairs, not {text!r}")
    return build_config(kind, loaded, name)


def build_config(kind: type[ConfigT], values: dict[str, object], name: str) -> ConfigT:
    """Builds settings from a mapping.

    Raises:
        UserError: If a setting is unknown or out of range; every one is named.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        told = [_describe(problem, kind, name) for problem in problems]
        unknown = [problem["loc"][:-1] for problem in problems if _is_unknown(problem)]
        allowed = [_allowed(kind, name, section) for section in dict.fromkeys(unknown)]
        raise UserError(". ".join(["; ".join(told), *allowed])) from error


def _describe(problem: ErrorDetails, kind: type[Config], name: str) -> str:
    key = ".".join([name, *map(str, problem["loc"])])
    if _is_unknown(problem):
        return _suggest(problem["loc"], kind, name)
    return f"{key}={problem['input']!r}: {problem['msg']}"


def _is_unknown(problem: ErrorDetails) -> bool:
    return problem["type"] == "extra_forbidden"


def _suggest(place: Sequence[int | str], kind: type[Config], name: str) -> str:
    key = ".".join([name, *map(str, place)])
    paths = {path.rpartition(".")[2]: f"{name}.{path}" for path in _paths(kind)}
    wanted = str(place[-1])
    if wanted in paths and len(place) == 1:  # from before the settings had sections
        return f"{key} is now {paths[wanted]}"
    nearest = difflib.get_close_matches(wanted, paths, n=1)
    return f"{key} is not a setting" + "".join(f"; did you mean {paths[n]}?" for n in nearest)


def _allowed(kind: type[Config], name: str, section: Sequence[int | str]) -> str:
    for key in section:
        kind = _sections(kind)[str(key)]
    return f"Settings of {'.'.join([name, *map(str, section)])}: {', '.join(kind.model_fields)}"


def _paths(kind: type[Config]) -> Iterator[str]:
    """The settings with their sections, e.g. `schedule.epochs`."""
    sections = _sections(kind)
    for key in kind.model_fields:
        yield key
        yield from (f"{key}.{path}" for path in _paths(sections[key])) if key in sections else ()


def _sections(kind: type[Config]) -> dict[str, type[Config]]:
    types = {key: field.annotation for key, field in kind.model_fields.items()}
    return {
        key: found
        for key, found in types.items()
        if isinstance(found, type) and issubclass(found, Config)
    }
