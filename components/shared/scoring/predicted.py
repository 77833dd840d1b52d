"""Prediction and scoring of volumes, the same for all steps."""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from components.shared.dataset.manifest import VolumeEntry
from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.volumes import Mask, Volume
from components.shared.model.segmenter import Segmenter
from components.shared.progress import track
from components.shared.scoring.decision import find_tumour
from components.shared.scoring.scores import VolumeScore, score_volume


class Predicted(NamedTuple):
    """A volume, its predicted mask and its score.

    Attributes:
        entry: Entry of the manifest.
        volume: Voxels with the true mask.
        mask: Predicted mask, slices x height x width.
        score: Score of the prediction.
        seconds: Time of the prediction.
    """

    entry: VolumeEntry
    volume: Volume
    mask: Mask
    score: VolumeScore
    seconds: float


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
        threshold: Lowest probability that counts as tumour. Small components are removed as the
            model's recipe says.
        what: Work in two or three words, for the progress.

    Raises:
        UserError: If a volume cannot be read, or the model returns anything but probabilities.
    """
    for entry in track(entries, len(entries), what):
        volume = dataset.volume(entry)
        started = time.monotonic()
        probability = segmenter(volume.image, entry.volume, volume.channels)[0]
        seconds = time.monotonic() - started
        mask = find_tumour(probability, threshold, segmenter.min_component_fraction)
        score = score_volume(entry, volume, probability, mask)
        yield Predicted(entry, volume, mask, score, seconds)
