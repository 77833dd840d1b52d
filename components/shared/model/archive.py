"""A `torch.export` archive from anywhere, read without running anything that it holds.

`torch.export.load` of torch 2.15 trusts an archive: it evaluates texts, follows dotted names,
unpickles, imports and opens shared libraries. So torch never gets the archive that was given.
It gets one that is written here from what the strict check has understood: the program by
`exported_graph`, which says for each text in it why it is dangerous, the raw bytes of the
weights, and nothing else. What is checked and what is loaded cannot be two things: not by two
readers of zip files or of JSON that see different members, nor by a file that changes in between.

Of the archive (`torch/export/pt2_archive/_package.py`, `constants.py`) is allowed:

- a zip file with members that are stored, not compressed (torch writes no others; so nothing
  unpacks to more than the file's size), each name once whatever its case, below one folder,
  all of them known; no links, no folders, no encryption;
- `archive_format`, `archive_version`, `byteorder`, `.data/*`: what torch 2.15 writes;
- `models/model.json`: the program;
- `data/weights/*` and `data/constants/*`: one JSON file and the raw bytes of the tensors that it
  lists. Every tensor lies within its file and is no larger. Pickled tensors (`use_pickle`,
  the older `model.pt`), script and opaque objects (`custom_obj_*`, `opaque_obj_*`, which are
  unpickled) are refused;
- `data/sample_inputs/model.pt`: a pickle. It is not read, and torch gets an empty one.

Refused with all others: `data/aotinductor/*` (shared libraries), `extra/*`, `executorch/*`, and
the format before 2.8, to which `torch.export.load` falls back.
"""

import json
import re
import stat
import struct
import zipfile
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import ValidationError
from torch.export.passes import move_to_device_pass
from torch.export.pt2_archive._package import load_pt2

from components.shared.model.exported_graph import (
    SCHEMA_VERSION,
    ExportedProgram,
    Part,
    PayloadConfig,
    SchemaVersion,
)

_MOST_MEMBERS = 20_000
_LARGEST_TEXT = 32 * 2**20  # bytes of a JSON member; the largest seen has 4 MB
_PROGRAM = "models/model.json"
_SAMPLE_INPUTS = "data/sample_inputs/model.pt"
_TENSORS = {
    "data/weights/": "data/weights/model_weights_config.json",
    "data/constants/": "data/constants/model_constants_config.json",
}
_FORMAT = {
    "archive_format": b"pt2",
    "archive_version": b"0",
    "byteorder": b"little",
    ".data/version": b"6\n",
}
_KNOWN = {*_FORMAT, _PROGRAM, _SAMPLE_INPUTS, *_TENSORS.values(), ".data/serialization_id"}
_TENSOR = re.compile(r"data/(?:weights/weight|constants/tensor)_[0-9]{1,6}")

PartT = TypeVar("PartT", bound=Part)


class BadArchiveError(Exception):
    """An archive is not loaded; the text is the reason, the archive's name is not in it."""


def load_program(archive: Path, scratch: Path, device: torch.device) -> torch.nn.Module:
    """Loads the program of an archive.

    Args:
        archive: `model.pt2` of a model folder.
        scratch: A private folder for the checked archive.
        device: Where it will run, whatever it was exported on.

    Raises:
        BadArchiveError: If the archive holds anything that an exported segmenter does not, or
            torch cannot load it.
        OSError: If it cannot be read, or the checked one cannot be written.
    """
    checked = scratch / "checked.pt2"
    write_checked(archive, checked)
    try:
        program = load_pt2(checked).exported_programs["model"]
        # moved even if it is there: its constants lie where they were made; without guards:
        # they would be code
        return move_to_device_pass(program, device).module(check_guards=False)
    except Exception as error:  # of any kind, where the parts are allowed and make no program
        reason = f"torch {torch.__version__} cannot read it: {describe(error.__cause__ or error)}"
        raise BadArchiveError(reason) from error


def write_checked(archive: Path, checked: Path) -> None:
    """Writes an archive anew from what the check allows.

    Raises:
        BadArchiveError: If the archive holds anything else.
        OSError: If one cannot be read or the other cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as given, zipfile.ZipFile(checked, "w") as new:
            _copy(_Members(given, archive.stat().st_size), new)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, struct.error) as error:
        raise BadArchiveError(f"it is no sound zip file ({describe(error)})") from error


def describe(error: BaseException) -> str:
    """An error in one short line."""
    lines = str(error).split("\n")
    return shown(f"{type(error).__name__}: {lines[0]}")[1:-1]


def shown(text: str | bytes) -> str:
    """A text from an archive for a message: short, quoted, in one line, without control codes."""
    written = ascii(text)
    return written if len(written) <= 120 else f"{written[:110]}...{written[-1]}"


class _Members:
    """The members of a zip file: all of them stored, each name once, all known."""

    def __init__(self, file: zipfile.ZipFile, size_bytes: int) -> None:
        infos = file.infolist()
        if len(infos) > _MOST_MEMBERS or sum(info.file_size for info in infos) > size_bytes:
            raise BadArchiveError("it is a zip bomb: its members are too many or overlap")
        for info in infos:
            _check_member(info)
        self._file = file
        self._members = {info.filename.partition("/")[2]: info for info in infos}
        folders = {info.filename.partition("/")[0] for info in infos}
        if len(folders) > 1 or len({name.casefold() for name in self._members}) < len(infos):
            raise BadArchiveError("it has more than one folder or two members of one name")

    def size(self, name: str) -> int:
        if name not in self._members:
            raise BadArchiveError(f"it has no {name}")
        return self._members[name].file_size

    def text(self, name: str) -> bytes:
        if self.size(name) > _LARGEST_TEXT:
            raise BadArchiveError(f"its {name} has {self.size(name)} bytes")
        return self.data(name)

    def data(self, name: str) -> bytes:
        return self._file.read(self._members[name])

    def tensors(self, folder: str) -> set[str]:
        return {name for name in self._members if _TENSOR.match(name) and name.startswith(folder)}


def _check_member(info: zipfile.ZipInfo) -> None:
    name = info.filename.partition("/")[2]
    if name not in _KNOWN and not _TENSOR.fullmatch(name):
        raise BadArchiveError(f"it has a member {shown(info.filename)}")
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise BadArchiveError(f"its member {shown(info.filename)} is compressed")
    if info.flag_bits & 1 or stat.S_ISLNK(info.external_attr >> 16):
        raise BadArchiveError(f"its member {shown(info.filename)} is encrypted or a link")


def _copy(given: _Members, new: zipfile.ZipFile) -> None:
    for name, expected in _FORMAT.items():
        found = given.text(name)
        if found != expected:
            raise BadArchiveError(f"its {name} is {shown(found)}, not {shown(expected)}")
        new.writestr(f"model/{name}", found)
    program = _parse(ExportedProgram, _current(_load_json(given, _PROGRAM)), _PROGRAM)
    new.writestr(f"model/{_PROGRAM}", _dump_json(program))
    for folder, config in _TENSORS.items():
        _copy_tensors(given, new, folder, config)
    new.writestr(f"model/{_SAMPLE_INPUTS}", b"")


def _copy_tensors(given: _Members, new: zipfile.ZipFile, folder: str, config: str) -> None:
    listed = _parse(PayloadConfig, _load_json(given, config), config)
    for payload in listed.config.values():
        name = f"{folder}{payload.path_name}"
        if not payload.tensor_meta.fits(given.size(name)):
            raise BadArchiveError(f"its {name} has not the size that {config} says")
    named = {f"{folder}{payload.path_name}" for payload in listed.config.values()}
    if named != given.tensors(folder):
        raise BadArchiveError(f"its {folder} are not those that {config} lists")
    new.writestr(f"model/{config}", _dump_json(listed))
    for name in sorted(named):
        new.writestr(f"model/{name}", given.data(name))


def _current(program: object) -> object:
    stated = program.get("schema_version") if isinstance(program, dict) else None
    version = _parse(SchemaVersion, stated, f"{_PROGRAM}: schema_version")
    if version.major != SCHEMA_VERSION[0] or version.minor > SCHEMA_VERSION[1]:
        assert isinstance(program, dict)
        raise BadArchiveError(
            f"its schema is {version.major}.{version.minor} (torch "
            f"{shown(str(program.get('torch_version')))}); read are {SCHEMA_VERSION[0]}.0 to "
            f"{SCHEMA_VERSION[0]}.{SCHEMA_VERSION[1]}, which torch up to 2.15 writes"
        )
    return program


def _load_json(given: _Members, name: str) -> object:
    text = given.text(name)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadArchiveError(f"its {name} is no JSON ({describe(error)})") from error


def _dump_json(part: Part) -> bytes:
    return json.dumps(part.model_dump(exclude_unset=True)).encode()


def _parse(kind: type[PartT], found: object, name: str) -> PartT:
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        place = shown(".".join(map(str, problem["loc"])))
        message = problem["msg"].removeprefix("Value error, ")
        value = shown(str(problem["input"]))
        raise BadArchiveError(f"its {name} has {value} at {place}: {message}") from error
