"""The test part as an exported segmenter predicts it: scores, masks, figures."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from components.evaluate.settings import EvaluateSettings
from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.split import check_split
from components.shared.dataset.volumes import Mask
from components.shared.model.segmenter import Segmenter
from components.shared.scoring.groups import first_of_each_third, group
from components.shared.scoring.metrics import THRESHOLD, aggregate
from components.shared.scoring.predicted import scored
from components.shared.scoring.scores import PatientScore, VolumeScore


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
        min_component_fraction: Of the segmenter.
        predictions: The predicted masks under the volumes' names.
        metrics: Over all patients, see `components.shared.scoring.metrics.aggregate`, and
            `threshold`: from which probability on a pixel was tumour for all of this.
        groups: The same metrics under `site/<code>` and `size/<third>`.
    """

    scores: tuple[VolumeScore, ...]
    min_component_fraction: float
    predictions: Mapping[str, PackedMask]
    metrics: Mapping[str, float]
    groups: Mapping[str, Mapping[str, float]]


def evaluate_test_part(
    segmenter: Segmenter, dataset: SplitDataset, settings: EvaluateSettings
) -> Evaluation:
    """Predicts and scores every volume of the test part, and no other.

    Args:
        segmenter: The exported model.
        dataset: The data; its split is checked again here, so that no patient or image
            that was trained on is scored.
        settings: Of the step.

    Raises:
        UserError: If the split does not fit the data set, a volume cannot be read, or the
            model gives something else than probabilities.
    """
    check_split(dataset.split, dataset.manifest)
    entries = dataset.entries("test")
    scores = []
    predictions = {}
    for entry, _, mask, score in scored(segmenter, dataset, entries, settings.threshold):
        scores.append(score)
        predictions[entry.volume] = PackedMask.pack(mask)
    return _evaluation(scores, predictions, segmenter.min_component_fraction, settings)


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
    return sorted(first_of_each_third(scores, count))


def _evaluation(
    scores: Sequence[VolumeScore],
    predictions: Mapping[str, PackedMask],
    min_component_fraction: float,
    settings: EvaluateSettings,
) -> Evaluation:
    return Evaluation(
        scores=tuple(scores),
        min_component_fraction=min_component_fraction,
        predictions=predictions,
        metrics={**aggregate(scores), THRESHOLD: settings.threshold},
        groups={name: aggregate(some) for name, some in group(scores).items()},
    )
