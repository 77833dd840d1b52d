"""Predicts volumes and scores them, the same way wherever models are judged."""

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
    """A volume, what was predicted for it and how good that is.

    Attributes:
        entry: Of the manifest.
        volume: The voxels with the true mask.
        mask: The predicted one, slices x height x width.
        score: Of the prediction.
    """

    entry: VolumeEntry
    volume: Volume
    mask: Mask
    score: VolumeScore


def scored(
    segmenter: Segmenter,
    dataset: SplitDataset,
    entries: Sequence[VolumeEntry],
    threshold: float,
    what: str = "volumes",
) -> Iterator[Predicted]:
    """Predicts volumes and scores them, one at a time, and tells how far it is.

    Args:
        segmenter: The exported model.
        dataset: Where the voxels are.
        entries: Which volumes.
        threshold: A pixel is predicted as tumour from this probability on; small components
            are left out as the model wants.
        what: The work in two or three words, for the progress.

    Raises:
        UserError: If a volume cannot be read, or the model gives something else than
            probabilities.
    """
    for entry in track(entries, len(entries), what):
        volume = dataset.volume(entry)
        probability = segmenter(volume.image, entry.volume)
        mask = find_tumour(probability, threshold, segmenter.min_component_fraction)
        yield Predicted(entry, volume, mask, score_volume(entry, volume, probability, mask))
