"""Prepared slices on disk, and their order in training."""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from components.shared.dataset.channels import LGG_CHANNELS, LGG_TARGETS, Channels, Target
from components.shared.dataset.manifest import VolumeEntry
from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.split import Part
from components.shared.dataset.volumes import Volume, target_masks
from components.shared.errors import UserError
from components.shared.model.network import VolumeSegmenter
from components.shared.model.preparation import cut
from components.shared.progress import track
from components.shared.storage.store import explain_disk, file_digest, whole_file
from components.train.data.carvemix import LARGEST_MARGIN, LEAST_MARGIN, paste_tumour

logger = logging.getLogger(__name__)

COVERAGE_LEVELS = 255  # a mask's pixel holds the covered fraction of its area, as uint8

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]
SliceTensors = tuple[Tensor, Tensor, Tensor]
"""Image, mask and two indices (slice and donor), of one slice or of a batch."""

_FILES = ("images.npy", "box.npy", "masks.npy")
_DIGESTS = "digests.json"


@dataclass(frozen=True)
class PreparedVolume:
    """A volume at the network's size, mapped into memory.

    Attributes:
        entry: Entry of the volume in the manifest.
        images: float16, slices x channels x side x side, see `VolumeSegmenter.prepare`.
        box: float32, four values, see `head_box`.
        masks: uint8 fraction of each target in a pixel (0 to 255), slices x targets x side x side.
        label_map: uint8 at full size, slices x height x width.
        targets: Targets in the label map.
    """

    entry: VolumeEntry
    images: np.ndarray
    box: np.ndarray
    masks: np.ndarray
    label_map: np.ndarray
    targets: tuple[Target, ...] = LGG_TARGETS

    @property
    def truth(self) -> np.ndarray:
        """Mask of each target at full size: bool, targets x slices x height x width."""
        return target_masks(self.label_map, self.targets)


def prepare_volumes(
    dataset: SplitDataset, part: Part, segmenter: VolumeSegmenter, *, whole_scans: bool = False
) -> list[PreparedVolume]:
    """Normalizes and crops the volumes of a part once, into files in the cache.

    The files are checked by their digests before they are used again, and recreated if they or
    the preprocessing have changed. Of several processes with one cache the first one fetches and
    prepares a volume; the others wait for it.

    Args:
        dataset: Data set and split.
        part: Part of the split.
        segmenter: Segmenter with the preprocessing.
        whole_scans: Leave out volumes that lack a sequence.

    Raises:
        UserError: If the store lacks a volume or it was changed, or none has all sequences.
    """
    entries = [entry for entry in dataset.entries(part) if not (whole_scans and entry.missing)]
    if not entries:
        raise UserError(
            f"no volume of the {part} part has all sequences; set train.flair_network=null to "
            "train one network on all"
        )
    digest = _preprocessing_digest(segmenter, dataset.manifest.targets)
    return [
        _prepared(entry, dataset, segmenter, digest)
        for entry in track(entries, len(entries), f"{part} volumes prepared")
    ]


def _prepared(
    entry: VolumeEntry, dataset: SplitDataset, segmenter: VolumeSegmenter, digest: str
) -> PreparedVolume:
    folder = dataset.cache / "prepared" / f"{entry.digest}-{digest}"
    with _one_at_a_time(folder):
        volume = dataset.volume(entry)
        if not _is_whole(folder):
            _write(folder, _prepare(volume, segmenter))
    images, box, masks = (np.load(folder / name, mmap_mode="c") for name in _FILES)
    masks = masks.reshape(len(images), len(volume.targets), *masks.shape[-2:])
    return PreparedVolume(entry, images, box, masks, volume.mask, volume.targets)


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    with explain_disk(f"cache {folder.parent}"):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # also released if the process is killed
        yield
    finally:
        os.close(descriptor)


def _prepare(volume: Volume, segmenter: VolumeSegmenter) -> Arrays:
    image, truth = torch.from_numpy(volume.image), torch.from_numpy(volume.truth)
    with torch.inference_mode():
        levels = segmenter.levels(image)
        box = segmenter.box(levels)
        fractions = cut(truth.transpose(0, 1).float(), box, segmenter.image_size)
        masks = (fractions * COVERAGE_LEVELS).round().byte()
        masks = masks if len(truth) > 1 else masks[:, 0]  # as files of one target always were
        return segmenter.prepare(levels).half().numpy(), box.numpy(), masks.numpy()


def _preprocessing_digest(
    segmenter: VolumeSegmenter, targets: Sequence[Target] = LGG_TARGETS
) -> str:
    """Digest of a small prepared volume; it changes with code, sizes and libraries.

    It depends on the volumes' type and the targets' labels, where they differ from the LGG set's.
    """
    digest = hashlib.sha256()
    for array in _prepare(_small_volume(segmenter.channels), segmenter):
        digest.update(array.tobytes())
    form = (segmenter.channels.dtype, *(sorted(target.labels) for target in targets))
    if form != (LGG_CHANNELS.dtype, [*LGG_TARGETS[0].labels]):
        digest.update(repr(form).encode())
    return digest.hexdigest()[:16]


def _small_volume(channels: Channels = LGG_CHANNELS) -> Volume:
    """A volume whose head fades out on one side; its middle channel is dark with hot voxels."""
    generator = np.random.default_rng(0)
    count, middle = channels.count, channels.count // 2
    image = np.zeros((3, 40, 48, count), np.uint8)
    image[:, 4:32, 8:40] = generator.integers(20, 250, (3, 28, 32, count))
    image[:, 4:32, 40:] = np.linspace(120, 0, 8)[:, None]
    image[..., middle] //= 5
    image[0, 8, 12:16, middle] = 255
    return Volume(image, (image[..., 0] > 200).astype(np.uint8), channels)


def _is_whole(folder: Path) -> bool:
    """Compares the files with their stored digests; logs a warning if they differ."""
    try:
        listed = (folder / _DIGESTS).read_text()
        whole = listed == _digests(folder)
    except (FileNotFoundError, UnicodeDecodeError):
        whole = False
    if not whole and any(folder.iterdir()):
        logger.warning("prepared files %s are incomplete or changed; recreating them", folder.name)
    return whole


def _digests(folder: Path) -> str:
    return json.dumps({name: file_digest(folder / name) for name in _FILES})


def _write(folder: Path, arrays: Arrays) -> None:
    with explain_disk(f"cache {folder.parent}"):
        for name, array in zip(_FILES, arrays, strict=True):
            with whole_file(folder / name) as stream:
                np.save(stream, array)
        with whole_file(folder / _DIGESTS) as stream:  # last: it marks the others as complete
            stream.write(_digests(folder).encode())


@dataclass(frozen=True)
class Draw:
    """A slice of the training order.

    Attributes:
        index: Index of the slice.
        donor: Index of the slice whose tumour is pasted into it; `None` pastes nothing.
        margin: Width around that tumour, as a fraction of the side.
    """

    index: int
    donor: int | None = None
    margin: float = 0.0


class SliceDataset(Dataset[SliceTensors]):
    """Slices of prepared volumes with their neighbors."""

    def __init__(self, volumes: Sequence[PreparedVolume], context_slices: int) -> None:
        self._volumes = volumes
        self._offsets = range(-context_slices, context_slices + 1)
        self._places = [
            (number, position)
            for number, volume in enumerate(volumes)
            for position in range(volume.entry.slices)
        ]
        self.has_tumour = np.concatenate([volume.truth.any(axis=(0, 2, 3)) for volume in volumes])

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, draw: Draw) -> SliceTensors:
        """One slice: float16 channels x side x side, float32 targets x side x side, two indices.

        The indices are the slice's and its donor's; both are the slice's if nothing is pasted.
        """
        image, mask = self._slice(draw.index)
        if draw.donor is not None:
            image, mask = paste_tumour(image, mask, *self._slice(draw.donor), draw.margin)
        donor = draw.index if draw.donor is None else draw.donor
        return image, mask, torch.tensor([draw.index, donor])

    def _slice(self, index: int) -> tuple[Tensor, Tensor]:
        number, position = self._places[index]
        volume = self._volumes[number]
        rows = np.clip([position + offset for offset in self._offsets], 0, len(volume.images) - 1)
        image = torch.from_numpy(volume.images[rows]).flatten(0, 1)
        mask = torch.from_numpy(np.array(volume.masks[position])).float() / COVERAGE_LEVELS
        return image, mask

    def volume_of(self, index: int) -> str:
        """The name of a slice's volume."""
        return self._volumes[self._places[index][0]].entry.volume


class TumourSampler(Sampler[Draw]):
    """Draws every tumour slice once per epoch, and as many others as the fraction allows.

    The order depends only on the seed and the epoch, so a resumed run sees the same slices as an
    uninterrupted one. Several processes split one order among themselves.

    Args:
        has_tumour: Boolean array; whether each slice contains tumour.
        foreground_fraction: Fraction of tumour slices (foreground oversampling).
        seed: Seed of the order.
        carvemix_prob: Function from an epoch to the probability that a tumour is pasted.
        rank: Rank of this process.
        ranks: Number of processes; all get the same number of slices.
    """

    def __init__(
        self,
        has_tumour: np.ndarray,
        *,
        foreground_fraction: float,
        seed: int,
        carvemix_prob: Callable[[int], float] = lambda _: 0.0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self._tumour = np.flatnonzero(has_tumour)
        self._others = np.flatnonzero(~has_tumour)
        wanted = round(len(self._tumour) * (1 - foreground_fraction) / foreground_fraction)
        self._drawn = min(wanted, len(self._others))
        self._seed = seed
        self._carvemix_prob = carvemix_prob
        self._rank, self._ranks = rank, ranks
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order; Lightning calls it before every epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return (len(self._tumour) + self._drawn) // self._ranks

    def __iter__(self) -> Iterator[Draw]:
        generator = np.random.default_rng([self._seed, self._epoch])
        others = generator.choice(self._others, self._drawn, replace=False)
        order = generator.permutation(np.concatenate([self._tumour, others]))
        pasted = generator.random(len(order)) < self._carvemix_prob(self._epoch)
        donors = generator.choice(self._tumour, len(order))
        margins = generator.uniform(LEAST_MARGIN, LARGEST_MARGIN, len(order))
        for place in range(self._rank, len(self) * self._ranks, self._ranks):
            index = int(order[place])
            if pasted[place]:
                yield Draw(index, int(donors[place]), float(margins[place]))
            else:
                yield Draw(index)
