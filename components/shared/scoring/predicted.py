"""Prediction and scoring of volumes, the same for all steps."""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from components.shared.dataset.channels import Target
from components.shared.dataset.manifest import VolumeEntry
from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.volumes import Mask, Volume
from components.shared.model.segmenter import Segmenter
from components.shared.progress import track
from components.shared.scoring.decision import find_targets
from components.shared.scoring.scores import VolumeScore, score_volume


class Predicted(NamedTuple):
    """A volume, its predicted masks and their scores.

    Attributes:
        entry: Entry of the manifest.
        volume: Voxels with the true masks.
        masks: Predicted mask of each target, targets x slices x height x width.
        scores: Score of each target.
        seconds: Time of the prediction.
    """

    entry: VolumeEntry
    volume: Volume
    masks: Mask
    scores: tuple[VolumeScore, ...]
    seconds: float

    @property
    def score(self) -> VolumeScore:
        """Score of the first target."""
        return self.scores[0]


def by_target(
    targets: Sequence[Target], scores: Sequence[Sequence[VolumeScore]]
) -> dict[str, list[VolumeScore]]:
    """Arranges the scores of volumes by the targets' names; the order is kept."""
    return {
        target.name: [volume[number] for volume in scores] for number, target in enumerate(targets)
    }


def scored(
    segmenter: Segmenter,
    dataset: SplitDataset,
    entries: Sequence[VolumeEntry],
    threshold: float,
    what: str = "volumes",
) -> Iterator[Predicted]:
    """Predicts volumes and scores them, one at a time, and logs the progress.

    Args:
        segmenter: Stored model.
        dataset: Data set with the voxels.
        entries: Volumes to predict.
        threshold: Lowest probability that counts as a target. Small components are removed as the
            model's recipe says.
        what: Work in two or three words, for the progress.

    Raises:
        UserError: If a volume cannot be read, or the model returns anything but probabilities.
    """
    for entry in track(entries, len(entries), what):
        volume = dataset.volume(entry)
        started = time.monotonic()
        probability = segmenter(volume.image, entry.volume, volume.channels)
        seconds = time.monotonic() - started
        masks = find_targets(probability, threshold, segmenter.min_component_fraction)
        pairs = zip(probability, masks, strict=True)
        scores = tuple(
            score_volume(entry, volume, *pair, target) for target, pair in enumerate(pairs)
        )
        yield Predicted(entry, volume, masks, scores, seconds)
