"""Masks from probabilities."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from components.shared.dataset.volumes import Mask, Probability

_TOUCHING = np.ones((3, 3, 3))  # faces, edges and corners


def find_tumour(probability: Probability, threshold: float, min_component_fraction: float) -> Mask:
    """Returns the pixels that are predicted as tumour.

    Args:
        probability: float32, slices x height x width.
        threshold: Lowest probability that counts as tumour.
        min_component_fraction: Least size of a component as a fraction of the largest one. Smaller
            ones are removed. Components are connected in three dimensions; a corner suffices.

    Returns:
        Mask, slices x height x width.
    """
    mask: Mask = probability >= threshold
    if not min_component_fraction:
        return mask
    components, pixels = find_components(mask)
    kept = pixels >= min_component_fraction * pixels.max(initial=0)
    chosen: Mask = np.append(False, kept)[components]
    return chosen


def find_components(mask: Mask) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.intp]]:
    """Numbers the connected components of a mask; a corner suffices to connect.

    Returns:
        Number of each pixel's component, 0 outside the mask; pixels of component 1, 2, ...
    """
    components, _ = ndimage.label(mask, _TOUCHING)
    return components, np.bincount(components.ravel())[1:]


def find_targets(probability: Probability, threshold: float, min_component_fraction: float) -> Mask:
    """Applies `find_tumour` to each target: from and to targets x slices x height x width."""
    return np.stack([find_tumour(one, threshold, min_component_fraction) for one in probability])


def decision_text(threshold: float, min_component_fraction: float) -> str:
    """Describes `find_tumour` in a sentence for reports."""
    text = f"A pixel is predicted as tumour if its probability is {threshold:g} or more"
    if not min_component_fraction:
        return f"{text}."
    return (
        f"{text}, and the connected part that it belongs to, in three dimensions, has at least "
        f"{min_component_fraction:.0%} of the pixels of the largest part."
    )
