"""Prepared slices on disk and the order in which training sees them."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
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
from components.shared.progress import track
from components.shared.storage.store import explain_disk
from components.train.network import VolumeSegmenter, cut, head_box

COVERAGE_LEVELS = 255  # a mask's pixel holds the covered share of its area, as uint8
_FILES = ("images", "box", "masks")
_PREPARATION = "2"  # raised when VolumeSegmenter.prepare changes, so old files are not used


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
    dataset: SplitDataset, part: Part, segmenter: VolumeSegmenter
) -> list[PreparedVolume]:
    """Normalises and cuts the volumes of a part once, into files keyed by digest and size.

    Raises:
        UserError: If the store lacks a volume or it was changed.
    """
    entries = dataset.entries(part)
    return [
        _prepared(entry, dataset, segmenter)
        for entry in track(entries, len(entries), f"{part} volumes prepared")
    ]


def _prepared(
    entry: VolumeEntry, dataset: SplitDataset, segmenter: VolumeSegmenter
) -> PreparedVolume:
    volume = dataset.volume(entry)
    key = f"{entry.digest}-{segmenter.image_size}-{_PREPARATION}"
    path = dataset.cache / "prepared" / key
    if not path.exists():
        _write(path, *_prepare(volume, segmenter))
    images, box, masks = (np.load(path / f"{name}.npy", mmap_mode="c") for name in _FILES)
    return PreparedVolume(entry, images, box, masks, volume.mask)


def _prepare(
    volume: Volume, segmenter: VolumeSegmenter
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image, mask = torch.from_numpy(volume.image), torch.from_numpy(volume.mask)
    with torch.inference_mode():
        box = head_box(image)
        shares = cut(mask[:, None].float(), box, segmenter.image_size)[:, 0]
        masks = (shares * COVERAGE_LEVELS).round().byte()
        return segmenter.prepare(image).half().numpy(), box.numpy(), masks.numpy()


def _write(path: Path, *arrays: np.ndarray) -> None:
    with explain_disk(f"cache {path.parent}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".part-", dir=path.parent))
        for name, array in zip(_FILES, arrays, strict=True):
            np.save(temporary / f"{name}.npy", array)
    try:
        temporary.rename(path)
    except OSError:  # another process was faster; its files are the same
        shutil.rmtree(temporary)


class SliceDataset(Dataset[tuple[Tensor, Tensor]]):
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

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """One slice: float16 channels x side x side, and float32 mask 1 x side x side."""
        number, position = self._places[index]
        volume = self._volumes[number]
        rows = np.clip([position + offset for offset in self._offsets], 0, len(volume.images) - 1)
        image = torch.from_numpy(volume.images[rows]).flatten(0, 1)
        mask = torch.from_numpy(np.array(volume.masks[position])).float() / COVERAGE_LEVELS
        return image, mask[None]


class TumourSampler(Sampler[int]):
    """Draws every tumour slice once an epoch and as many others as the share allows.

    The order depends on the seed and the epoch alone, so a resumed training sees what the
    uninterrupted one would have seen.
    """

    def __init__(self, has_tumour: np.ndarray, tumour_share: float, seed: int) -> None:
        self._tumour = np.flatnonzero(has_tumour)
        self._others = np.flatnonzero(~has_tumour)
        wanted = round(len(self._tumour) * (1 - tumour_share) / tumour_share)
        self._drawn = min(wanted, len(self._others))
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order; Lightning calls it before every epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._tumour) + self._drawn

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self._seed, self._epoch])
        others = generator.choice(self._others, self._drawn, replace=False)
        yield from generator.permutation(np.concatenate([self._tumour, others])).tolist()
