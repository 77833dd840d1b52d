"""YAML files with settings, by name: those of the package, or the user's own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from components.shared.config import in_words, load_yaml, nearest
from components.shared.errors import UserError


def names(folder: Path) -> list[str]:
    """The names of the files that come with the package."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def read(name: str, folder: Path, kind: str) -> Mapping[str, Any]:
    """Reads one of `names(folder)`, or the YAML file at a path.

    `kind` is the name of such files in messages, e.g. `preset`.

    Raises:
        UserError: If there is no such file, or it is not a mapping with names as keys.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    try:
        content = load_yaml(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        known = names(folder)
        raise UserError(
            f"no {kind} {name!r}{in_words(nearest(name, known))}; there are {', '.join(known)}, or "
            "give a .yaml file"
        ) from error
    except yaml.YAMLError as error:
        raise UserError(f"{kind} {name} is not valid YAML: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{kind} {name} must hold sections by name, e.g. `train:`")
    return content


def section(content: Mapping[str, Any], name: str, place: str) -> dict[str, Any]:
    """Returns one section of the file `place`; raises `UserError` if it is not a mapping."""
    found = content.get(name) or {}
    if not isinstance(found, dict):
        raise UserError(f"{place}: {name} must hold `key: value` pairs, not {found!r}")
    return found


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merges mappings at every depth; any other value in `above` replaces that in `below`."""
    result = dict(below)
    for key, value in above.items():
        inner = result.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            value = merged(inner, value)
        result[key] = value
    return result
