"""Settings in YAML by name: files that come with the package, or the user's own."""

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
    """The content of a named file.

    Args:
        name: One of `names(folder)`, or the path of a YAML file.
        folder: Of the files that come with the package.
        kind: What the files are called in a message, e.g. `preset`.

    Raises:
        UserError: If there is no such file, or it holds no mapping of names.
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


def section(content: Mapping[str, Any], name: str, told: str) -> dict[str, Any]:
    """One section of a file; empty where the file is silent.

    Raises:
        UserError: If it is no mapping; `told` says where it stands.
    """
    found = content.get(name) or {}
    if not isinstance(found, dict):
        raise UserError(f"{told}: {name} must hold `key: value` pairs, not {found!r}")
    return found


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge mappings at every depth; any other value in `above` replaces that in `below`."""
    result = dict(below)
    for key, value in above.items():
        inner = result.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            value = merged(inner, value)
        result[key] = value
    return result
