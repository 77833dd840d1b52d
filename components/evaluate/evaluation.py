"""Scores the exported segmenter on the test part, one volume in memory at a time."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.evaluate.settings import EvaluateSettings
from components.shared.manifest import Manifest, VolumeEntry, read_manifest
from components.shared.progress import track
from components.shared.scoring import (
    SIZES,
    Mask,
    PatientScore,
    VolumeScore,
    aggregate,
    group,
    score_volume,
    size_thirds,
)
from components.shared.segmenter import Segmenter
from components.shared.split import Split, check_split, read_split
from components.shared.store import Store, open_store
from components.shared.volumes import Volume, fetch_volume

# of the many numbers of a group, those that people compare
GROUP_METRICS = (
    *("patient_dice_mean", "patient_dice_median", "pooled_dice", "precision_mean"),
    *("recall_mean", "hd95_median", "false_positive_pixels_mean"),
)


@dataclass(frozen=True)
class HeldOut:
    """The test part of a data set version, and where its voxels are.

    Attributes:
        store: Where the voxels are.
        cache: Folder for fetched volumes.
        manifest: The data set version.
        split: Of this version.
    """

    store: Store
    cache: Path
    manifest: Manifest
    split: Split

    @classmethod
    def open(
        cls, store: str, cache: Path, dataset_id: str, split_id: str, manifest: str, split: str
    ) -> "HeldOut":
        """Reads the files that the earlier steps left.

        Raises:
            UserError: If they are not of the versions asked for, or the split lets a patient
                or an image into two parts.
        """
        known = read_manifest(Path(manifest), dataset_id)
        return cls(open_store(store), cache, known, read_split(Path(split), split_id, known))

    def read(self, entry: VolumeEntry) -> Volume:
        """Maps a volume into memory."""
        return fetch_volume(self.store, entry.digest, self.cache)


@dataclass(frozen=True)
class PackedMask:
    """A predicted mask, small enough to keep one for every patient (some 10 kB)."""

    data: bytes
    shape: tuple[int, ...]

    @classmethod
    def pack(cls, mask: Mask) -> "PackedMask":
        """Packs a mask of any shape."""
        return cls(zlib.compress(np.packbits(mask).tobytes(), level=1), mask.shape)

    def unpack(self) -> Mask:
        """The mask again."""
        bits = np.frombuffer(zlib.decompress(self.data), np.uint8)
        count = int(np.prod(self.shape))
        return np.unpackbits(bits, count=count).reshape(self.shape).astype(bool)


@dataclass(frozen=True)
class Evaluation:
    """What the test part says about a segmenter.

    Attributes:
        scores: One a patient, by the volume's name.
        predictions: The predicted masks under the volumes' names.
        metrics: Over all patients, see `components.shared.scoring.DEFINITIONS`.
        groups: The same metrics under `site/<code>` and `size/<third>`.
    """

    scores: tuple[VolumeScore, ...]
    predictions: Mapping[str, PackedMask]
    metrics: Mapping[str, float]
    groups: Mapping[str, Mapping[str, float]]


def evaluate_test_part(
    segmenter: Segmenter, held_out: HeldOut, settings: EvaluateSettings
) -> Evaluation:
    """Predicts and scores every volume of the test part, and no other.

    Args:
        segmenter: The exported model.
        held_out: The data; its split is checked again here, so that no patient or image
            that was trained on is scored.
        settings: Of the step.

    Raises:
        UserError: If the split does not fit the data set, a volume cannot be read, or the
            model gives something else than probabilities.
    """
    check_split(held_out.split, held_out.manifest)
    entries = held_out.split.entries("test", held_out.manifest)
    scores = []
    predictions = {}
    for entry in track(entries, len(entries), "volumes"):
        volume = held_out.read(entry)
        probability = segmenter(volume.image)
        scores.append(score_volume(entry, volume, probability, settings.threshold))
        predictions[entry.volume] = PackedMask.pack(probability >= settings.threshold)
    return _evaluation(scores, predictions, settings)


def ranked_volumes(scores: Sequence[PatientScore], count: int) -> dict[str, list[str]]:
    """Picks the patients that the report shows, by Dice; each one once.

    Returns:
        Names under `best`, `median` and `worst`, best Dice first; at most `count` each, and
        at most a third of the patients.
    """
    order = [one.volume for one in sorted(scores, key=lambda one: (-one.dice, one.volume))]
    count = min(count, max(len(order) // 3, 1))
    start = (len(order) - count) // 2
    picks = {"worst": order[-count:], "best": order[:count], "median": order[start:][:count]}
    shown: set[str] = set()
    for name, volumes in picks.items():  # with one or two patients the picks overlap
        picks[name] = [volume for volume in volumes if volume not in shown]
        shown.update(volumes)
    return {name: picks[name] for name in ("best", "median", "worst")}


def recurring_volumes(scores: Sequence[PatientScore], count: int) -> list[str]:
    """Picks the patients whose overlays MLflow gets: the same ones for every model.

    Returns:
        The first `count` names of each third by true tumour size, sorted.
    """
    thirds = size_thirds(scores)
    return sorted(
        name
        for size in SIZES
        for name in sorted(volume for volume, third in thirds.items() if third == size)[:count]
    )


def _evaluation(
    scores: Sequence[VolumeScore],
    predictions: Mapping[str, PackedMask],
    settings: EvaluateSettings,
) -> Evaluation:
    def measure(some: Sequence[VolumeScore]) -> dict[str, float]:
        return aggregate(some, settings.bootstrap_resamples, settings.seed)

    return Evaluation(
        scores=tuple(scores),
        predictions=predictions,
        metrics=measure(scores),
        groups={name: measure(some) for name, some in group(scores).items()},
    )
