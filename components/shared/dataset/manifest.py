"""A data set version: the list of its volumes, named by its own digest."""

import functools
import hashlib
import json
import logging
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from components.shared.config import Record
from components.shared.errors import UserError
from components.shared.storage.store import Store

logger = logging.getLogger(__name__)

_DIGEST_LENGTH = 16  # hexadecimal digits of an id: enough for people and for uniqueness


class ChannelIntensity(Record):
    """Intensity of one channel, from every fourth row and column of each slice (0 to 255)."""

    mean: float
    p1: int
    p50: int
    p99: int


class VolumeEntry(Record):
    """One volume of a data set.

    Attributes:
        volume: The scan's name, e.g. `TCGA_CS_4941_19960909`.
        patient: The person, e.g. `TCGA_CS_4941`.
        site: The institution's code, e.g. `CS`.
        date: Day of the scan, `yyyymmdd`.
        digest: Address of the voxels, see `components.shared.dataset.volumes`.
        image_digest: Digest of the image alone; equal for copies with another mask.
        tumour_pixels: Positive pixels in all masks.
        tumour_slices: Slices with at least one positive pixel.
        missing: Sequences that are a copy of FLAIR, of `pre-contrast`, `post-contrast`.
        intensity: One entry a channel: pre-contrast, FLAIR, post-contrast.
        attributes: The patient's row of `data.csv`; `None` where a cell is empty or broken.
    """

    volume: str
    patient: str
    site: str
    date: str
    digest: str
    image_digest: str
    slices: int
    height: int
    width: int
    tumour_pixels: int
    tumour_slices: int
    missing: tuple[str, ...]
    intensity: tuple[ChannelIntensity, ...]
    attributes: dict[str, float | str | None]


class Manifest(Record):
    """All volumes of one data set version, sorted by name."""

    volumes: tuple[VolumeEntry, ...]

    @functools.cached_property
    def dataset_id(self) -> str:
        """Digest of the manifest: equal content has an equal id, wherever it came from."""
        return short_digest(self.to_json())

    def to_json(self) -> bytes:
        """The canonical bytes; their digest is the id."""
        return canonical_json(self.model_dump(mode="json"))

    def by_name(self) -> dict[str, VolumeEntry]:
        """The entries under their volume's name."""
        return {entry.volume: entry for entry in self.volumes}


class DatasetSummary(Record):
    """A version as `brainseg datasets` lists it."""

    dataset_id: str
    volumes: int
    slices: int
    tumour_slices: int
    sites: tuple[str, ...]


def make_manifest(entries: Iterable[VolumeEntry]) -> Manifest:
    """Builds a manifest in canonical order."""
    return Manifest(volumes=tuple(sorted(entries, key=lambda entry: entry.volume)))


def canonical_json(value: object) -> bytes:
    """JSON with one spelling: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def short_digest(data: bytes) -> str:
    """The first 16 hexadecimal digits of the sha256 of `data`."""
    return hashlib.sha256(data).hexdigest()[:_DIGEST_LENGTH]


def manifest_key(dataset_id: str) -> str:
    """Key of a data set's manifest in the store."""
    return f"datasets/{dataset_id}/manifest.json"


def read_manifest(path: Path, dataset_id: str) -> Manifest:
    """Reads a manifest file.

    Raises:
        UserError: If the file is not a manifest or is another version's.
    """
    return _parse(path.read_bytes(), dataset_id, str(path))


def fetch_manifest(store: Store, dataset_id: str) -> Manifest:
    """Reads a data set version from the store.

    Raises:
        UserError: If the store has no such version, or it was changed.
    """
    try:
        data = store.read(manifest_key(dataset_id))
    except KeyError as error:
        raise UserError(
            f"store {store.uri} has no data set {dataset_id}; list those it has with "
            "`brainseg datasets`"
        ) from error
    return _parse(data, dataset_id, f"{store.uri}/{manifest_key(dataset_id)}")


def list_datasets(store: Store) -> list[DatasetSummary]:
    """The data set versions of a store, sorted by id.

    Manifests that were changed or are of another release are left out with a warning.

    Raises:
        UserError: If the store cannot be read.
    """
    found = []
    for key in store.keys("datasets/"):
        if not key.endswith("/manifest.json"):
            continue
        data, dataset_id = store.read(key), key.split("/", 1)[1].removesuffix("/manifest.json")
        try:
            found.append(_summary(_parse(data, dataset_id, f"{store.uri}/{key}")))
        except UserError as error:
            # the first line: there may be one for each volume
            logger.warning("left out: %s", str(error).splitlines()[0])
    return found


def _summary(manifest: Manifest) -> DatasetSummary:
    return DatasetSummary(
        dataset_id=manifest.dataset_id,
        volumes=len(manifest.volumes),
        slices=sum(entry.slices for entry in manifest.volumes),
        tumour_slices=sum(entry.tumour_slices for entry in manifest.volumes),
        sites=tuple(sorted({entry.site for entry in manifest.volumes})),
    )


def _parse(data: bytes, dataset_id: str, where: str) -> Manifest:
    if short_digest(data) != dataset_id:
        raise UserError(
            f"{where} is not data set {dataset_id}: its digest is {short_digest(data)}; "
            "ingest the data set again"
        )
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise UserError(f"{where} is not a manifest of this version: {error}") from error
