"""An MLflow model folder from anywhere: which file in it is the program, and what is said of it.

MLflow is not asked, because `mlflow.pytorch.load_model` imports a folder's own modules
(`code_paths`), and the module that `pickle_module_info.txt` names, before it looks whether a
pickle is allowed. `MLmodel` says where the program is; the other files (`requirements.txt`,
`conda.yaml`, `registered_model_meta`, the input example) are not read.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ValidationError, field_validator

from components.shared.config import Record
from components.shared.model.archive import BadArchiveError, describe, shown

_LARGEST_BYTES = 2**20
_DEEPEST = 20


class _PytorchFlavor(BaseModel):
    model_data: Literal["data"]
    code: Literal["null"] = "null"


class _Flavors(BaseModel):
    pytorch: _PytorchFlavor


class _Description(BaseModel):
    """What matters of `MLmodel`; what else MLflow writes there is not used."""

    flavors: _Flavors
    metadata: dict[str, object] = {}

    @field_validator("metadata", mode="before")
    @classmethod
    def _none(cls, found: object) -> object:
        return {} if found in ("null", "") else found


class ModelFolder(Record):
    """What is read of a model folder.

    Attributes:
        program: The archive.
        metadata: What the export or the user wrote into MLmodel; numbers are text.
    """

    program: Path
    metadata: dict[str, object]


def read_model_folder(folder: Path) -> ModelFolder:
    """Reads a model folder that holds one exported program and no code.

    Raises:
        BadArchiveError: If the folder is another one; the text is the reason.
        OSError: If it cannot be read.
    """
    _refuse_links(folder)
    description = _describe(folder / "MLmodel")
    program = folder / "data" / "model.pt2"
    if not program.is_file() or any(path != program for path in program.parent.iterdir()):
        raise BadArchiveError("its folder data holds something else than one model.pt2")
    return ModelFolder(program=program, metadata=description.metadata)


def _refuse_links(folder: Path) -> None:
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if Path(parent, name).is_symlink():
                raise BadArchiveError(f"it has a link, {shown(name)}")


def _describe(path: Path) -> _Description:
    try:
        return _Description.model_validate(_read_yaml(path))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise BadArchiveError(f"its MLmodel has another {place}: {problem['msg']}") from error


def _read_yaml(path: Path) -> object:
    # the plainest loader: it knows no tags, no merging of mappings, and text is text
    with open(path, "rb") as file:
        text = file.read(_LARGEST_BYTES)
    try:
        _refuse_tags(yaml.parse(text, yaml.BaseLoader))
        return yaml.load(text, yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise BadArchiveError(f"its MLmodel is no YAML ({describe(error)})") from error


def _refuse_tags(events: Iterable[yaml.Event]) -> None:
    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if getattr(event, "tag", None):
            raise BadArchiveError("its MLmodel has a tag, which could name code")
        if depth > _DEEPEST:  # PyYAML's time grows with the square of the depth
            raise BadArchiveError("its MLmodel is nested too deep")
