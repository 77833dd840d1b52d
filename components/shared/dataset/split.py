"""Division of a data set's volumes into parts for training, validation and test."""

import functools
from collections import Counter
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
        """Digest of the parts' volumes, without their patients, which `check_split` compares."""
        return short_digest(canonical_json({part: self.part(part) for part in PARTS}))

    def patients(self, name: Part) -> dict[str, tuple[str, ...]]:
        """The patients of one part, each with the volumes."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def part(self, name: Part) -> tuple[str, ...]:
        """The volumes of one part, sorted."""
        return tuple(sorted(volume for group in self.patients(name).values() for volume in group))

    def to_json(self) -> bytes:
        """The canonical bytes of the file form."""
        return canonical_json(self.model_dump(mode="json"))

    def entries(self, name: Part, manifest: Manifest) -> list[VolumeEntry]:
        """The manifest's entries of one part."""
        by_name = manifest.by_name()
        return [by_name[volume] for volume in self.part(name)]


def make_split(parts: Mapping[Part, Iterable[VolumeEntry]]) -> Split:
    """Builds a split in canonical order."""
    volumes: dict[Part, dict[str, tuple[str, ...]]] = {part: {} for part in PARTS}
    for part in PARTS:
        for entry in sorted(parts[part], key=lambda entry: (entry.patient, entry.volume)):
            earlier = volumes[part].get(entry.patient, ())
            volumes[part][entry.patient] = (*earlier, entry.volume)
    return Split(**volumes)


def check_split(split: Split, manifest: Manifest) -> None:
    """Checks that no patient and no image is in two parts.

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
    patient_of = {
        volume: patient
        for part in PARTS
        for patient, volumes in split.patients(part).items()
        for volume in volumes
    }
    misplaced = [name for name, patient in patient_of.items() if known[name].patient != patient]
    _refuse("volumes are another patient's", misplaced)
    entries = [split.entries(part, manifest) for part in PARTS]
    _refuse("patients are in two parts", _shared([e.patient for e in part] for part in entries))
    _refuse("images are in two parts", _shared([e.image_digest for e in part] for part in entries))


def new_to(known: Iterable[VolumeEntry], entries: Iterable[VolumeEntry]) -> list[VolumeEntry]:
    """The entries whose patient and image are not among the known ones."""
    seen = {name for entry in known for name in (entry.patient, entry.image_digest)}
    return [entry for entry in entries if not seen & {entry.patient, entry.image_digest}]


def _shared(parts: Iterable[Iterable[str]]) -> list[str]:
    """Names that are in several parts."""
    counts = Counter(name for part in parts for name in set(part))
    return sorted(name for name, count in counts.items() if count > 1)


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
    """Reads a split, possibly of an older data set version, from the store.

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
        return Split.model_validate_json(data)
    except ValidationError as error:
        raise UserError(
            f'{where} is not a split; the form is {{"train": {{patient: [volume...]}}, '
            '"validation": {...}, "test": {...}}'
        ) from error
