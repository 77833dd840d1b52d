"""Quality of a prediction without a label."""

from typing import Any

import numpy as np
from scipy import ndimage

from components.shared.dataset.volumes import Mask, Probability, Volume

_TOUCHING = np.ones((3, 3, 3))  # faces, edges and corners
_DIGITS = 6


class CaseQuality:
    """Measures one case while it is predicted.

    Attributes:
        columns: Values of `CaseRow` by name; empty before the measurement.
    """

    def __init__(self) -> None:
        self.columns: dict[str, Any] = {}

    def measure(self, _: str, volume: Volume, probability: Probability, masks: Mask) -> None:
        """Measures the first target of a predicted volume, as `predict_scan` calls it."""
        del volume
        mask = masks[0]
        inside = probability[0][mask].astype(np.float64)
        sizes = np.bincount(ndimage.label(mask, _TOUCHING)[0].ravel())[1:]
        self.columns = {
            "confidence": round(float(inside.mean()), _DIGITS) if inside.size else None,
            "mean_entropy": round(mean_entropy(inside), _DIGITS) if inside.size else None,
            "components": len(sizes),
            "largest_component_fraction": (
                round(float(sizes.max() / sizes.sum()), _DIGITS) if inside.size else None
            ),
        }


def mean_entropy(probability: np.typing.NDArray[np.float64]) -> float:
    """Computes the mean entropy of yes or no in bits, from 0 (certain) to 1 (0.5)."""
    p = np.clip(probability, 1e-12, 1 - 1e-12)
    return float(-(p * np.log2(p) + (1 - p) * np.log2(1 - p)).mean())
