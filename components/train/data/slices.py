"""Prepared slices on disk and the order in which training sees them."""

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

from components.shared.dataset.manifest import VolumeEntry
from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.split import Part
from components.shared.dataset.volumes import Volume
from components.shared.errors import UserError
from components.shared.model.network import VolumeSegmenter
from components.shared.model.preparation import cut
from components.shared.progress import track
from components.shared.storage.store import explain_disk, file_digest, whole_file
from components.train.data.carvemix import LARGEST_MARGIN, LEAST_MARGIN, paste_tumour

logger = logging.getLogger(__name__)

COVERAGE_LEVELS = 255  # a mask's pixel holds the covered share of its area, as uint8

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]
SliceTensors = tuple[Tensor, Tensor, Tensor]
"""Image, mask and two indices, its own and its donor's; of one slice or of a batch."""

_FILES = ("images.npy", "box.npy", "masks.npy")
_DIGESTS = "digests.json"


@dataclass(frozen=True)
class PreparedVolume:
    """A volume at the network's size, mapped into memory.

    Attributes:
        entry: The volume's line in the manifest.
        images: float16, slices x 3 x side x side, see `VolumeSegmenter.prepare`.
        box: float32, four values, see `head_box`.
        masks: uint8 share of tumour in each pixel (0 to 255), slices x side x side.
        truth: uint8 mask in {0, 1} at full size, slices x height x width.
    """

    entry: VolumeEntry
    images: np.ndarray
    box: np.ndarray
    masks: np.ndarray
    truth: np.ndarray


def prepare_volumes(
    dataset: SplitDataset, part: Part, segmenter: VolumeSegmenter, *, whole_scans: bool = False
) -> list[PreparedVolume]:
    """Normalizes and cuts the volumes of a part once, into files in the cache.

    The files are checked by their digests before they are used again, and made anew if they
    were changed or the way of preparing is another. Of several processes with one cache the
    first one fetches and prepares a volume, the others wait for it.

    Args:
        dataset: Where the volumes are.
        part: Which of them.
        segmenter: Whose way of preparing it is.
        whole_scans: Leaves volumes out that lack a sequence.

    Raises:
        UserError: If the store lacks a volume or it was changed, or none is whole.
    """
    entries = [entry for entry in dataset.entries(part) if not (whole_scans and entry.missing)]
    if not entries:
        raise UserError(
            f"no volume of the {part} part has all sequences; train one network on all by "
            "train.flair_network=null"
        )
    way = _way_of_preparing(segmenter)
    return [
        _prepared(entry, dataset, segmenter, way)
        for entry in track(entries, len(entries), f"{part} volumes prepared")
    ]


def _prepared(
    entry: VolumeEntry, dataset: SplitDataset, segmenter: VolumeSegmenter, way: str
) -> PreparedVolume:
    folder = dataset.cache / "prepared" / f"{entry.digest}-{way}"
    with _one_at_a_time(folder):
        volume = dataset.volume(entry)
        if not _is_whole(folder):
            _write(folder, _prepare(volume, segmenter))
    images, box, masks = (np.load(folder / name, mmap_mode="c") for name in _FILES)
    return PreparedVolume(entry, images, box, masks, volume.mask)


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    with explain_disk(f"cache {folder.parent}"):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # given back when the process ends, however
        yield
    finally:
        os.close(descriptor)


def _prepare(volume: Volume, segmenter: VolumeSegmenter) -> Arrays:
    image, mask = torch.from_numpy(volume.image), torch.from_numpy(volume.mask)
    with torch.inference_mode():
        box = segmenter.box(image)
        shares = cut(mask[:, None].float(), box, segmenter.image_size)[:, 0]
        masks = (shares * COVERAGE_LEVELS).round().byte()
        return segmenter.prepare(image).half().numpy(), box.numpy(), masks.numpy()


def _way_of_preparing(segmenter: VolumeSegmenter) -> str:
    """A digest of what is made of a small volume: other code, size or library, other files."""
    generator = np.random.default_rng(0)
    image = np.zeros((3, 40, 48, 3), np.uint8)
    image[:, 4:32, 8:40] = generator.integers(20, 250, (3, 28, 32, 3))
    arrays = _prepare(Volume(image, (image[..., 1] > 200).astype(np.uint8)), segmenter)
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def _is_whole(folder: Path) -> bool:
    """Whether the files are those that were written; says if not."""
    try:
        listed = (folder / _DIGESTS).read_text()
        whole = listed == _digests(folder)
    except (FileNotFoundError, UnicodeDecodeError):
        whole = False
    if not whole and any(folder.iterdir()):
        logger.warning("prepared files %s are incomplete or were changed; made anew", folder.name)
    return whole


def _digests(folder: Path) -> str:
    return json.dumps({name: file_digest(folder / name) for name in _FILES})


def _write(folder: Path, arrays: Arrays) -> None:
    with explain_disk(f"cache {folder.parent}"):
        for name, array in zip(_FILES, arrays, strict=True):
            with whole_file(folder / name) as stream:
                np.save(stream, array)
        with whole_file(folder / _DIGESTS) as stream:  # last: it says that the others are whole
            stream.write(_digests(folder).encode())


@dataclass(frozen=True)
class Draw:
    """What a training sees at one place of its order.

    Attributes:
        index: Of the slice.
        donor: Index of the slice whose tumour is pasted into it, if any is.
        margin: Around that tumour, as a share of the side.
    """

    index: int
    donor: int | None = None
    margin: float = 0.0


class SliceDataset(Dataset[SliceTensors]):
    """Slices of prepared volumes with their neighbours, read a batch at a time."""

    def __init__(self, volumes: Sequence[PreparedVolume], context_slices: int) -> None:
        self._volumes = volumes
        self._offsets = range(-context_slices, context_slices + 1)
        self._places = [
            (number, position)
            for number, volume in enumerate(volumes)
            for position in range(volume.entry.slices)
        ]
        self.has_tumour = np.concatenate([volume.truth.any(axis=(1, 2)) for volume in volumes])

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, draw: Draw) -> SliceTensors:
        """One slice: float16 channels x side x side, float32 mask 1 x side x side, two indices.

        They are its own and its donor's; both are its own if nothing is pasted.
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
        return image, mask[None]

    def volume_of(self, index: int) -> str:
        """The name of the volume that a slice is of."""
        return self._volumes[self._places[index][0]].entry.volume


class TumourSampler(Sampler[Draw]):
    """Draws every tumour slice once an epoch and as many others as the share allows.

    The order depends on the seed and the epoch alone, so a resumed training sees what the
    uninterrupted one would have seen. Several processes deal one order out among themselves.

    Args:
        has_tumour: Whether each slice holds tumour.
        foreground_fraction: Of the sampled slices (foreground oversampling).
        seed: Of the order.
        carvemix_prob: Of an epoch's slices into which a tumour is pasted.
        rank: Number of this process in the training.
        ranks: Processes in the training; all get equally many slices.
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
        self._skipped = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order; Lightning calls it before every epoch."""
        self._epoch = epoch

    def skip(self, slices: int) -> None:
        """Leaves the first slices of the next epoch out: an attempt before has seen them."""
        self._skipped = slices

    def __len__(self) -> int:
        return (len(self._tumour) + self._drawn) // self._ranks

    def __iter__(self) -> Iterator[Draw]:
        generator = np.random.default_rng([self._seed, self._epoch])
        others = generator.choice(self._others, self._drawn, replace=False)
        order = generator.permutation(np.concatenate([self._tumour, others]))
        pasted = generator.random(len(order)) < self._carvemix_prob(self._epoch)
        donors = generator.choice(self._tumour, len(order))
        margins = generator.uniform(LEAST_MARGIN, LARGEST_MARGIN, len(order))
        skipped, self._skipped = self._skipped, 0
        places = range(len(self) * self._ranks)[self._rank :: self._ranks]
        for place in places[skipped:]:
            index = int(order[place])
            if pasted[place]:
                yield Draw(index, int(donors[place]), float(margins[place]))
            else:
                yield Draw(index)


class VolumeSampler(Sampler[int | None]):
    """Deals volumes out to the processes of a training: to each as many, `None` after the last.

    Args:
        volumes: How many there are.
        rank: Number of this process in the training.
        ranks: Processes in the training.
    """

    def __init__(self, volumes: int, *, rank: int = 0, ranks: int = 1) -> None:
        self._volumes = volumes
        self._rank, self._ranks = rank, ranks
        self._ended = False

    def end(self) -> None:
        """Deals no more, until it begins anew."""
        self._ended = True

    def __len__(self) -> int:
        return -(-self._volumes // self._ranks)

    def __iter__(self) -> Iterator[int | None]:
        self._ended = False
        for number in range(self._rank, len(self) * self._ranks, self._ranks):
            if self._ended:
                return
            yield number if number < self._volumes else None
