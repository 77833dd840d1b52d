"""One patient's scan: voxels in memory and as one object in the store.

The object is a safetensors file with two tensors: `image` (uint8, int16 or float32, slices x
height x width x channels) and `mask` (uint8 label map, slices x height x width, 0 is background).
It holds no names, no geometry and no metadata, so equal voxels give an equal digest.
"""

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.shared.dataset.channels import LGG_CHANNELS, LGG_TARGETS, Channels, Target
from components.shared.dataset.geometry import Geometry
from components.shared.errors import UserError
from components.shared.storage.store import Store, file_digest

Voxels = npt.NDArray[np.uint8 | np.int16 | np.float32]
Pixels = npt.NDArray[np.uint8]
LabelMap = Pixels
Mask = npt.NDArray[np.bool_]
Probability = npt.NDArray[np.float32]

_TYPES: dict[str, np.dtype[Any]] = {
    "U8": np.dtype("uint8"),
    "I16": np.dtype("<i2"),
    "F32": np.dtype("<f4"),
}
_NAMES = {dtype: name for name, dtype in _TYPES.items()}


@dataclass(frozen=True)
class Volume:
    """The voxels of one scan, axial and LPS, with the form of its data set.

    Attributes:
        image: uint8, int16 or float32, slices x height x width x channels.
        mask: Label map as it is stored, uint8, slices x height x width.
        channels: Channels of the image.
        geometry: Position in space; `None` where it is unknown.
        targets: Targets in the label map.
    """

    image: Voxels
    mask: LabelMap
    channels: Channels = LGG_CHANNELS
    geometry: Geometry | None = None
    targets: tuple[Target, ...] = LGG_TARGETS

    @property
    def reference(self) -> Voxels:
        """The reference channel, slices x height x width."""
        return self.image[..., self.channels.reference_index]

    @cached_property
    def truth(self) -> Mask:
        """Mask of each target, targets x slices x height x width."""
        return target_masks(self.mask, self.targets)


@dataclass(frozen=True)
class EncodedVolume:
    """A volume as the store keeps it: the safetensors file's bytes.

    Attributes:
        digest: sha256 of `data`, hexadecimal: the object's address.
        image_digest: sha256 of the image's voxels and shape, whatever the mask.
    """

    data: bytes
    digest: str
    image_digest: str


def target_masks(label_map: LabelMap, targets: Sequence[Target]) -> Mask:
    """Returns the mask of each target in a label map.

    Args:
        label_map: uint8, of any shape.
        targets: Targets with their labels.

    Returns:
        bool, targets x the shape of the label map.
    """
    levels = np.arange(256)
    return np.stack([np.isin(levels, target.labels)[label_map] for target in targets])


def encode_volume(volume: Volume) -> EncodedVolume:
    """Serializes a volume; the same voxels give the same bytes on every machine."""
    head = _new_header(volume)
    image, mask = (each.ravel().data.cast("B") for each in (volume.image, volume.mask))
    hasher = hashlib.sha256(head)
    hasher.update(image)
    image_digest = hasher.hexdigest()
    hasher.update(mask)
    # not safetensors' own `save`, which takes the volume twice more and ends the process where
    # memory is short
    return EncodedVolume(b"".join((head, image, mask)), hasher.hexdigest(), image_digest)


def paint_masks(masks: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Paints masks into one label map, each over those before it.

    Args:
        masks: bool or uint8, targets x slices x height x width; one array of any type stays as it
            is.

    Returns:
        Slices x height x width: the number of the last mask that holds a voxel, counted from 1.
    """
    painted: npt.NDArray[Any] = masks[0]
    for number, mask in enumerate(masks[1:], start=2):
        painted = np.where(mask, np.uint8(number), painted)
    return painted


def size_text(shape: Sequence[int]) -> str:
    """The lengths of an array's axes, for people: `20 x 256 x 256`."""
    return " x ".join(str(length) for length in shape)


def volume_key(digest: str) -> str:
    """Key of the volume with this digest in the store."""
    return f"volumes/{digest[:2]}/{digest}.safetensors"


def map_volume(path: Path) -> Volume:
    """Maps a volume's file into memory: voxels are read from disk when touched.

    The arrays are private to the process (copy on write); the file is never changed.
    """
    with open(path, "rb") as stream:
        header, start = _header(stream.read(8192))

    def tensor(name: str) -> Any:  # noqa: ANN401 - of one of the types
        entry = header[name]
        return np.memmap(
            path,
            dtype=_TYPES[entry["dtype"]],
            mode="c",
            offset=start + entry["data_offsets"][0],
            shape=tuple(entry["shape"]),
        )

    return Volume(image=tensor("image"), mask=tensor("mask"))


def _new_header(volume: Volume) -> bytes:
    header, start = {}, 0
    for name, voxels in (("image", volume.image), ("mask", volume.mask)):
        offsets = (start, start := start + voxels.nbytes)
        dtype = _NAMES[voxels.dtype.newbyteorder("<")]
        header[name] = {"dtype": dtype, "shape": voxels.shape, "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that voxels are aligned for the processor
    return struct.pack("<Q", len(text)) + text


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    # safetensors: u64 little-endian header size, JSON header, then the tensors' bytes
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size]), 8 + size


def fetch_volume(store: Store, digest: str, cache: Path) -> Volume:
    """Returns a stored volume with its label map, mapped into memory from a local file.

    The file is the store's own where that is a local folder, else a copy in `cache`, made
    once. Its bytes are checked against the digest each time the file is opened.

    Raises:
        UserError: If the store lacks the volume or its bytes were changed.
    """
    path = store.local_path(volume_key(digest)) or cache / volume_key(digest)
    if not path.exists():
        try:
            store.download(volume_key(digest), path)
        except KeyError as error:
            raise UserError(
                f"store {store.uri} lacks volume {digest}; ingest the data set again"
            ) from error
    found = file_digest(path)
    if found != digest:
        raise UserError(
            f"{path} was changed: its digest is {found}, not {digest}; delete it and "
            "ingest the data set again"
        )
    return map_volume(path)
