"""Predictions on the test part: scores, masks and metrics."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from components.evaluate.settings import EvaluateSettings
from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.split import check_split
from components.shared.dataset.volumes import Mask
from components.shared.model.segmenter import Segmenter
from components.shared.scoring.groups import group
from components.shared.scoring.metrics import THRESHOLD, aggregate, aggregate_targets
from components.shared.scoring.predicted import by_target, scored
from components.shared.scoring.scores import PatientScore, VolumeScore


@dataclass(frozen=True)
class PackedMask:
    """A compressed mask of about 10 kB, small enough to keep one per patient."""

    data: bytes
    shape: tuple[int, ...]

    @classmethod
    def pack(cls, mask: Mask) -> "PackedMask":
        """Compresses a mask of any shape."""
        return cls(zlib.compress(mask.tobytes(), level=1), mask.shape)

    def unpack(self) -> Mask:
        """Restores the mask."""
        return np.frombuffer(zlib.decompress(self.data), bool).reshape(self.shape)


@dataclass(frozen=True)
class Evaluation:
    """Results of a segmenter on the test part.

    Attributes:
        reference: Channel that shows the head.
        targets: Scores by target, the first target first; one per volume, sorted by volume.
        min_component_fraction: Setting of the segmenter.
        predictions: Predicted masks by volume.
        metrics: Metrics over all patients, see
            `components.shared.scoring.metrics.aggregate_targets`, and `threshold`, the probability
            from which a pixel counts as tumour.
        groups: Metrics of the first target by group: `site/<code>` and `size/<third>`.
    """

    reference: str
    targets: Mapping[str, Sequence[VolumeScore]]
    min_component_fraction: float
    predictions: Mapping[str, PackedMask]
    metrics: Mapping[str, float]
    groups: Mapping[str, Mapping[str, float]]

    @property
    def scores(self) -> Sequence[VolumeScore]:
        """Scores of the first target."""
        return next(iter(self.targets.values()))


def evaluate_test_part(
    segmenter: Segmenter, dataset: SplitDataset, settings: EvaluateSettings
) -> Evaluation:
    """Predicts and scores every volume of the test part, and no other.

    Args:
        segmenter: Exported model.
        dataset: Data set; its split is checked again, so that no patient or image of the
            training part is scored.
        settings: Settings of the step.

    Raises:
        UserError: If the split does not match the data set, a volume cannot be read, or the
            model does not return probabilities.
    """
    check_split(dataset.split, dataset.manifest)
    entries = dataset.entries("test")
    scores: list[tuple[VolumeScore, ...]] = []
    predictions = {}
    for one in scored(segmenter, dataset, entries, settings.threshold):
        scores.append(one.scores)
        predictions[one.entry.volume] = PackedMask.pack(one.masks)
    targets = by_target(dataset.manifest.targets, scores)
    return Evaluation(
        reference=dataset.manifest.channels.reference,
        targets=targets,
        min_component_fraction=segmenter.min_component_fraction,
        predictions=predictions,
        metrics={**aggregate_targets(targets), THRESHOLD: settings.threshold},
        groups=aggregate_groups(next(iter(targets.values()))),
    )


def aggregate_groups(scores: Sequence[VolumeScore]) -> dict[str, dict[str, float]]:
    """Computes the metrics of each site and size third."""
    return {name: aggregate(some) for name, some in group(scores).items()}


def ranked_volumes(scores: Sequence[PatientScore], count: int) -> dict[str, list[str]]:
    """Picks the best, median and worst patients for the report, each once.

    Returns:
        Volumes under `best`, `median` and `worst`, the best Dice first. Each list has at most
        `count` volumes, and at most a third of the patients.
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
