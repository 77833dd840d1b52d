"""A data set version: the list of its volumes, named by its own digest."""

import functools
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from components.shared.config import Record
from components.shared.dataset.channels import (
    LGG_CHANNELS,
    LGG_LABELS,
    LGG_TARGETS,
    Channels,
    Target,
    VoxelType,
)
from components.shared.dataset.geometry import Geometry
from components.shared.errors import UserError
from components.shared.storage.store import Store

logger = logging.getLogger(__name__)

_DIGEST_LENGTH = 16  # hexadecimal digits of an id: enough for people and for uniqueness


class ChannelIntensity(Record):
    """Gray levels of one channel, from every fourth row and column of each slice (0 to 255).

    Attributes:
        black: Delivered value of gray level 0; see `components.shared.dataset.gray`.
        white: Delivered value of gray level 255.
    """

    mean: float
    p1: int
    p50: int
    p99: int
    black: float = 0.0
    white: float = 255.0


class VolumeEntry(Record):
    """One volume of a data set.

    Attributes:
        volume: The scan's name, e.g. `TCGA_CS_4941_19960909`.
        patient: The person, e.g. `TCGA_CS_4941`.
        site: The institution's code, e.g. `CS`.
        date: Day of the scan, `yyyymmdd`.
        digest: Address of the voxels, see `components.shared.dataset.volumes`.
        image_digest: Digest of the image alone; equal for copies with another mask.
        tumour_pixels: Pixels of the first target in all slices.
        tumour_slices: Slices with at least one such pixel.
        missing: Channels that are a copy of the reference, because they were not acquired.
        intensity: One entry a channel, in the manifest's order.
        attributes: The patient's row of the table; `None` where a cell is empty or broken.
        dtype: Type of the stored voxels.
        geometry: Position in space; `None` where it is unknown.
        label_voxels: Voxels of each label, where the manifest declares several.
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
    dtype: VoxelType = "uint8"
    geometry: Geometry | None = None
    label_voxels: dict[str, int] = Field(default_factory=dict)

    @property
    def tumour_ml(self) -> float | None:
        """Size of the first target in milliliters; `None` where the geometry is unknown."""
        return self.tumour_pixels * self.geometry.voxel_ml if self.geometry else None


class Manifest(Record):
    """All volumes of one data set version, sorted by name.

    Attributes:
        channels: Channels of all images.
        labels: Names of the label map's values.
        targets: What models find; the first one is that of the headline.
    """

    # Stored without what equals its default: so that ids outlive new fields. A default may
    # therefore never change.
    volumes: tuple[VolumeEntry, ...]
    channels: Channels = LGG_CHANNELS
    labels: dict[str, int] = LGG_LABELS
    targets: tuple[Target, ...] = LGG_TARGETS

    @functools.cached_property
    def dataset_id(self) -> str:
        """Digest of the manifest: equal content has an equal id, wherever it came from."""
        return short_digest(self.to_json())

    def to_json(self) -> bytes:
        """The canonical bytes; their digest is the id."""
        return canonical_json(self.model_dump(mode="json", exclude_defaults=True))

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


def make_manifest(
    entries: Iterable[VolumeEntry],
    channels: Channels = LGG_CHANNELS,
    labels: Mapping[str, int] = LGG_LABELS,
    targets: tuple[Target, ...] = LGG_TARGETS,
) -> Manifest:
    """Builds a manifest in canonical order."""
    volumes = tuple(sorted(entries, key=lambda entry: entry.volume))
    return Manifest(volumes=volumes, channels=channels, labels=dict(labels), targets=targets)


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
