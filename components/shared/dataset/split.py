"""Which volumes are for training, which for validation and which for the test."""

import functools
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from components.shared.config import Record
from components.shared.dataset.manifest import Manifest, VolumeEntry, canonical_json, short_digest
from components.shared.errors import UserError
from components.shared.storage.store import Store

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")


class Split(Record):
    """The patients of each part with their volumes, both sorted.

    The file form is JSON: `{"train": {patient: [volume...]}, "validation": {...}, "test": {...}}`.
    """

    train: dict[str, tuple[str, ...]]
    validation: dict[str, tuple[str, ...]]
    test: dict[str, tuple[str, ...]]

    @functools.cached_property
    def split_id(self) -> str:
        """Digest of the parts' volumes: equal parts have an equal id.

        Whose they are is not in it: the data set says so, and `check_split` compares.
        """
        return short_digest(canonical_json({part: self.part(part) for part in PARTS}))

    def patients(self, name: Part) -> dict[str, tuple[str, ...]]:
        """The patients of one part, each with the volumes."""
        parts: dict[Part, dict[str, tuple[str, ...]]] = {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
        }
        return parts[name]

    def part(self, name: Part) -> tuple[str, ...]:
        """The volumes of one part, sorted."""
        return tuple(sorted(itertools.chain.from_iterable(self.patients(name).values())))

    def to_json(self) -> bytes:
        """The canonical bytes of the file form."""
        return canonical_json(self.model_dump(mode="json"))

    def entries(self, name: Part, manifest: Manifest) -> list[VolumeEntry]:
        """The manifest's entries of one part."""
        by_name = manifest.by_name()
        return [by_name[volume] for volume in self.part(name)]


def make_split(parts: Mapping[Part, Iterable[VolumeEntry]]) -> Split:
    """Builds a split in canonical order."""
    return Split(**{name: _by_patient(parts[name]) for name in PARTS})


def _by_patient(entries: Iterable[VolumeEntry]) -> dict[str, tuple[str, ...]]:
    volumes: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        volumes[entry.patient].append(entry.volume)
    return {patient: tuple(sorted(volumes[patient])) for patient in sorted(volumes)}


def check_split(split: Split, manifest: Manifest) -> None:
    """Makes sure that no person and no image is in two parts.

    Raises:
        UserError: If a part is empty, a volume is unknown, another patient's, left out or named
            twice, or two parts share a patient or the same image voxels.
    """
    known = manifest.by_name()
    named = Counter(volume for part in PARTS for volume in split.part(part))
    _refuse("parts are empty", [part for part in PARTS if not split.part(part)])
    _refuse("volumes are not in the data set", [name for name in named if name not in known])
    _refuse("volumes are named twice", [name for name, count in named.items() if count > 1])
    _refuse("volumes are in no part", [name for name in known if name not in named])
    _refuse("volumes are another patient's", _misplaced(split, known))
    part_of = {volume: part for part in PARTS for volume in split.part(part)}
    _refuse(
        "patients are in two parts",
        _shared((entry.patient, part_of[entry.volume]) for entry in manifest.volumes),
    )
    _refuse(
        "images are in two parts",
        _shared((entry.image_digest, part_of[entry.volume]) for entry in manifest.volumes),
    )


def _misplaced(split: Split, known: Mapping[str, VolumeEntry]) -> list[str]:
    return [
        volume
        for part in PARTS
        for patient, volumes in split.patients(part).items()
        for volume in volumes
        if known[volume].patient != patient
    ]


def _shared(pairs: Iterable[tuple[str, Part]]) -> list[str]:
    parts: dict[str, set[Part]] = {}
    for key, part in pairs:
        parts.setdefault(key, set()).add(part)
    return [key for key, found in parts.items() if len(found) > 1]


def _refuse(problem: str, names: list[str]) -> None:
    if names:
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise UserError(f"split refused: {len(names)} {problem}: {shown}")


def split_key(split_id: str) -> str:
    """Key of a split in the store."""
    return f"splits/{split_id}.json"


def read_split(path: Path, split_id: str, manifest: Manifest) -> Split:
    """Reads a split file and checks it against the data set it is used with.

    Raises:
        UserError: If the file is not the split asked for, or `check_split` refuses it.
    """
    split = parse_split(path.read_bytes(), str(path))
    if split.split_id != split_id:
        raise UserError(f"{path} is split {split.split_id}, not {split_id}")
    check_split(split, manifest)
    return split


def fetch_split(store: Store, split_id: str) -> Split:
    """Reads a split from the store; it may be of an older data set version.

    Raises:
        UserError: If the store has no such split.
    """
    try:
        data = store.read(split_key(split_id))
    except KeyError as error:
        known = [key.removeprefix("splits/").removesuffix(".json") for key in store.keys("splits/")]
        raise UserError(
            f"store {store.uri} has no split {split_id!r}; it has: {', '.join(known) or 'none'}"
        ) from error
    return parse_split(data, f"{store.uri}/{split_key(split_id)}")


def parse_split(data: bytes, where: str) -> Split:
    """Reads the file form of a split.

    Raises:
        UserError: If `data` is not that form.
    """
    try:
        return Split.model_validate(json.loads(data))
    except (ValueError, ValidationError) as error:
        raise UserError(
            f'{where} is not a split; the form is {{"train": {{patient: [volume...]}}, '
            '"validation": {...}, "test": {...}}'
        ) from error
