"""Augmentation of a whole batch at once, on the device it is on.

By torch's own operations: what changes a slice must not depend on how a step is dealt out to
processes and micro-batches (see `Rows`), and libraries' transforms draw their chance themselves.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from components.shared.dataset.volumes import CHANNELS, FLAIR
from components.train.data.augment_fastai import augment_as_fastai
from components.train.recipe import Augmentation

_BENDING_POINTS = 5  # a side, of the grid whose points elastic deformation moves
_BIAS_FIELD_POINTS = 3  # a side, of the grid between whose points the bias field is smooth


@dataclass(frozen=True)
class Rows:
    """Which slices of a step's batch are at hand, of one that is dealt out.

    Chance is drawn for the whole batch and each slice takes its own, so what is done to a slice
    does not depend on how many processes and micro-batches share the step.

    Attributes:
        taken: Their places in the batch.
        total: Slices of the batch, in all processes and micro-batches.
        device: Where the slices are.
    """

    taken: slice
    total: int
    device: torch.device

    def rand(self, *shape: int) -> Tensor:
        """Uniform in 0..1, slices x shape."""
        return torch.rand(self.total, *shape, device=self.device)[self.taken]


def augment(
    images: Tensor, masks: Tensor, settings: Augmentation, rows: Rows
) -> tuple[Tensor, Tensor]:
    """Turns, zooms, mirrors, bends, brightens, shades and impoverishes each slice by its own draw.

    Args:
        images: float, batch x channels x side x side; channels are whole slices of three
            sequences, see `components.shared.model.network.with_neighbours`.
        masks: float in 0..1, batch x 1 x side x side; moved with its image.
        settings: Sizes and probabilities of the changes.
        rows: Which slices of the step's batch these are.

    Returns:
        Changed images and masks of the same shapes.
    """
    if settings.policy == "fastai":
        return augment_as_fastai(images, masks, rows.rand())
    placements = _placements(rows, settings)
    grid = functional.affine_grid(placements, list(masks.shape), align_corners=False)
    if settings.elastic_shift:
        grid = grid + _bend(rows, settings.elastic_shift, masks.shape[-1])
    images = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    masks = functional.grid_sample(masks, grid, padding_mode="border", align_corners=False)
    # in place from here: memory that is new at each of so many operations took half of the time
    if settings.sharpness_shift:
        _sharpen(images, settings.sharpness_shift, rows)
    count, channels, side, _ = images.shape
    sequences = images.view(count, channels // len(CHANNELS), len(CHANNELS), side, side)
    _change_intensities(sequences, settings, rows)
    return _lose_sequences(sequences, settings.modality_dropout_prob, rows).flatten(1, 2), masks


def _placements(rows: Rows, settings: Augmentation) -> Tensor:
    angle = _draw(rows, math.radians(settings.rotation_degrees))
    zoom = 1 + _draw(rows, settings.scale_factor)
    mirror = torch.where(rows.rand() < 0.5, -1.0, 1.0)
    cosine, sine, zero = angle.cos() * zoom, angle.sin() * zoom, torch.zeros_like(angle)
    first_row = torch.stack([cosine * mirror, -sine, zero], dim=1)
    second_row = torch.stack([sine * mirror, cosine, zero], dim=1)
    return torch.stack([first_row, second_row], dim=1)


def _bend(rows: Rows, limit: float, side: int) -> Tensor:
    """Displacements between random ones at the points of a coarse grid, as `grid_sample` counts."""
    points = _draw(rows, 2 * limit, 2, _BENDING_POINTS, _BENDING_POINTS)
    return _between(points, side).permute(0, 2, 3, 1)


def _between(points: Tensor, side: int) -> Tensor:
    """Bicubic interpolation to side x side, as products: torch's own is made for few points."""
    known = torch.eye(points.shape[-1], device=points.device)[None, None]
    weights = functional.interpolate(
        known, (side, points.shape[-1]), mode="bicubic", align_corners=True
    )[0, 0]
    return weights @ points @ weights.T


def _sharpen(images: Tensor, limit: float, rows: Rows) -> None:
    side = images.shape[-1]
    pairs = images[..., ::2, :] + images[..., 1::2, :]  # torch's pooling takes longer
    coarse = (pairs[..., ::2] + pairs[..., 1::2]) / 4
    blurred = functional.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)
    images.lerp_(blurred, _draw(rows, limit, 1, 1, 1))


def _change_intensities(sequences: Tensor, settings: Augmentation, rows: Rows) -> None:
    """Bends their scale between the least and the largest, which stay; shades; brightens.

    Each pass over all pixels takes its time, so the three are one: what is left of the least and
    what the place between it and the largest is worth.
    """
    least: Tensor | float = 0.0
    worth: Tensor | float = 1.0
    if settings.gamma > 1 or settings.bias_field:
        least = sequences.amin((-2, -1), keepdim=True)
        sequences.sub_(least)
    if settings.gamma > 1:
        worth = sequences.amax((-2, -1), keepdim=True).clamp(min=1e-6)
        exponent = _draw(rows, math.log(settings.gamma), 1, len(CHANNELS), 1, 1).exp()
        # logarithms: a quarter of the time of pow_
        sequences.mul_(1 / worth).clamp_(0, 1).log_().mul_(exponent).exp_()
    if settings.bias_field:
        worth = _bias_field(rows, settings.bias_field, sequences.shape[-1]) * worth
    shape = (1, len(CHANNELS), 1, 1)
    gain = 1 + _draw(rows, settings.intensity_shift, *shape)
    base = gain * least + _draw(rows, settings.intensity_shift, *shape)
    sequences.mul_(gain * worth).add_(base)


def _bias_field(rows: Rows, limit: float, side: int) -> Tensor:
    """Smooth fields of factors, the same for neighbouring slices."""
    points = _draw(rows, math.log1p(limit), len(CHANNELS), _BIAS_FIELD_POINTS, _BIAS_FIELD_POINTS)
    return _between(points, side).exp()[:, None]


def _lose_sequences(sequences: Tensor, share: float, rows: Rows) -> Tensor:
    # as in the data, a sequence that was not taken is a copy of FLAIR
    lost = rows.rand(1, len(CHANNELS), 1, 1) < share
    return torch.where(lost, sequences[:, :, FLAIR : FLAIR + 1], sequences)


def _draw(rows: Rows, limit: float, *shape: int) -> Tensor:
    return (2 * rows.rand(*shape) - 1) * limit
