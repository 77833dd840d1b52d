"""Quality of a prediction without a label."""

from typing import Any

import numpy as np

from components.predict.reference import TrainingData
from components.predict.settings import QualitySettings
from components.shared.dataset.volumes import Mask, Probability, Volume
from components.shared.model.segmenter import Segmenter, VolumeRefusedError
from components.shared.scoring.decision import find_components, find_tumour
from components.shared.scoring.scores import dice_of_counts

_DIGITS = 6


class QualityCheck:
    """Measures cases while they are predicted, and flags those beyond the limits.

    Attributes:
        columns: Values of `CaseRow` by name, of the last case.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        threshold: float,
        settings: QualitySettings,
        training: TrainingData | None,
    ) -> None:
        self._segmenter, self._threshold = segmenter, threshold
        self._settings, self._training = settings, training
        self.columns: dict[str, Any] = {}

    def measure(self, name: str, volume: Volume, probability: Probability, masks: Mask) -> None:
        """Measures the first target of a predicted volume, as `predict_scan` calls it."""
        mask = masks[0]
        inside = probability[0][mask].astype(np.float64)
        _, sizes = find_components(mask)
        training = self._training
        found = {
            "confidence": float(inside.mean()) if inside.size else None,
            "mean_entropy": mean_entropy(inside) if inside.size else None,
            "flip_disagreement": self._flip_disagreement(name, volume, mask),
            "components": len(sizes),
            "largest_component_fraction": float(sizes.max() / sizes.sum()) if inside.size else None,
            "intensity_score": training and training.intensity_score(volume),
        }
        self.columns = {
            key: round(value, _DIGITS) if isinstance(value, float) else value
            for key, value in found.items()
        }
        voxel_ml = volume.geometry.voxel_ml if volume.geometry else None
        is_usual_size = training is None or training.has_size(mask, voxel_ml)
        self.columns["flags"] = self._flags(is_usual_size)

    def _flags(self, is_usual_size: bool) -> tuple[str, ...]:
        limits = {
            "uncertain": ("mean_entropy", self._settings.max_entropy),
            "unstable": ("flip_disagreement", self._settings.max_flip_disagreement),
            "scattered": ("components", self._settings.max_components),
            "intensity": ("intensity_score", self._settings.max_intensity_score),
        }
        flags = [
            flag for flag, (column, limit) in limits.items() if (self.columns[column] or 0) > limit
        ]
        return tuple(flags if is_usual_size else [*flags, "size"])

    def _flip_disagreement(self, name: str, volume: Volume, mask: Mask) -> float | None:
        """1 - Dice of the masks of the volume and of its mirror image, left for right."""
        if not self._settings.flip:
            return None
        try:
            flipped = self._segmenter(volume.image[:, :, ::-1], name, volume.channels)[0]
        except VolumeRefusedError:
            return None
        other = find_tumour(flipped, self._threshold, self._segmenter.min_component_fraction)
        common = int((mask & other[:, :, ::-1]).sum())
        return 1 - dice_of_counts(common, int(other.sum()), int(mask.sum()))


def mean_entropy(probability: np.typing.NDArray[np.float64]) -> float:
    """Computes the mean entropy of yes or no in bits, from 0 (certain) to 1 (0.5)."""
    p = np.clip(probability, 1e-12, 1 - 1e-12)
    return float(-(p * np.log2(p) + (1 - p) * np.log2(1 - p)).mean())
