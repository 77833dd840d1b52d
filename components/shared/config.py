"""Frozen, validated records, and the settings in whose form every step receives its options."""

from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

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
        problems = "; ".join(_describe(problem, name) for problem in error.errors())
        allowed = ", ".join(kind.model_fields)
        raise UserError(f"{problems}. Settings of {name}: {allowed}") from error


def _describe(problem: object, name: str) -> str:
    assert isinstance(problem, dict)
    key = ".".join([name, *map(str, problem["loc"])])
    if problem["type"] == "extra_forbidden":
        return f"{key} is not a setting"
    return f"{key}={problem['input']!r}: {problem['msg']}"
