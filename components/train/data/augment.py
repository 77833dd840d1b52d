"""Augmentation of a whole batch at once, on its device.

It uses torch's own operations. The change of a slice must not depend on how a step is split into
processes and micro-batches (see `Rows`), and libraries' transforms draw random numbers themselves.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from components.shared.dataset.channels import Channels
from components.train.data.augment_fastai import augment_as_fastai
from components.train.recipe import Augmentation

_ELASTIC_POINTS = 5  # per side, of the grid whose points elastic deformation moves
_BIAS_FIELD_POINTS = 3  # a side, of the grid between whose points the bias field is smooth


@dataclass(frozen=True)
class Rows:
    """The slices of a step's batch that this process and micro-batch have.

    Random numbers are drawn for the whole batch and each slice uses its own. So the change of a
    slice does not depend on the number of processes and micro-batches.

    Attributes:
        taken: Positions in the batch.
        total: Slices of the batch, in all processes and micro-batches.
        device: Device of the slices.
    """

    taken: slice
    total: int
    device: torch.device

    def rand(self, *shape: int) -> Tensor:
        """Uniform random numbers in 0..1, slices x shape."""
        return torch.rand(self.total, *shape, device=self.device)[self.taken]


def augment(
    images: Tensor, masks: Tensor, settings: Augmentation, rows: Rows, channels: Channels
) -> tuple[Tensor, Tensor]:
    """Changes the geometry, intensities and sequences of each slice at random.

    Args:
        images: float, batch x stack x side x side; a stack has all channels of a slice and its
            neighbors, see `components.shared.model.network.with_neighbours`.
        masks: float in 0..1, batch x targets x side x side; moved with its image.
        settings: Sizes and probabilities of the changes.
        rows: Positions of these slices in the step's batch.
        channels: Channels of the volumes.

    Returns:
        Changed images and masks of the same shapes.
    """
    if settings.policy == "fastai":
        return augment_as_fastai(images, masks, rows.rand(), channels.count)
    placements = _placements(rows, settings)
    grid = functional.affine_grid(placements, list(masks.shape), align_corners=False)
    if settings.elastic_shift:
        grid = grid + _elastic(rows, settings.elastic_shift, masks.shape[-1])
    images = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    masks = functional.grid_sample(masks, grid, padding_mode="border", align_corners=False)
    # in place from here: new memory in each of so many operations took half of the time
    if settings.sharpness_shift:
        _sharpen(images, settings.sharpness_shift, rows)
    sequences = images.view(len(images), -1, channels.count, *images.shape[2:])
    _change_intensities(sequences, settings, rows)
    probability, reference = settings.modality_dropout_prob, channels.reference_index
    return _drop_modalities(sequences, probability, reference, rows).flatten(1, 2), masks


def _placements(rows: Rows, settings: Augmentation) -> Tensor:
    angle = _draw(rows, math.radians(settings.rotation_degrees))
    zoom = 1 + _draw(rows, settings.scale_factor)
    mirror = torch.where(rows.rand() < 0.5, -1.0, 1.0)
    cosine, sine, zero = angle.cos() * zoom, angle.sin() * zoom, torch.zeros_like(angle)
    first_row = torch.stack([cosine * mirror, -sine, zero], dim=1)
    second_row = torch.stack([sine * mirror, cosine, zero], dim=1)
    return torch.stack([first_row, second_row], dim=1)


def _elastic(rows: Rows, limit: float, side: int) -> Tensor:
    """Displacements in the units of `grid_sample`, smooth between the points of a coarse grid."""
    points = _draw(rows, 2 * limit, 2, _ELASTIC_POINTS, _ELASTIC_POINTS)
    return _between(points, side).permute(0, 2, 3, 1)


def _between(points: Tensor, side: int) -> Tensor:
    """Bicubic interpolation to side x side, by matrix products: faster than torch's here."""
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
    """Applies gamma, bias field, contrast and brightness.

    Gamma acts between the smallest and the largest intensity, which stay. A pass over all pixels
    is expensive, so the three share one: a base and a scale of the position above the smallest.
    """
    count = sequences.shape[2]
    least: Tensor | float = 0.0
    scale: Tensor | float = 1.0
    if settings.gamma > 1 or settings.bias_field:
        least = sequences.amin((-2, -1), keepdim=True)
        sequences.sub_(least)
    if settings.gamma > 1:
        scale = sequences.amax((-2, -1), keepdim=True).clamp(min=1e-6)
        exponent = _draw(rows, math.log(settings.gamma), 1, count, 1, 1).exp()
        # logarithms: a quarter of the time of pow_
        sequences.mul_(1 / scale).clamp_(0, 1).log_().mul_(exponent).exp_()
    if settings.bias_field:
        scale = _bias_field(rows, settings.bias_field, count, sequences.shape[-1]) * scale
    shape = (1, count, 1, 1)
    gain = 1 + _draw(rows, settings.intensity_shift, *shape)
    base = gain * least + _draw(rows, settings.intensity_shift, *shape)
    sequences.mul_(gain * scale).add_(base)


def _bias_field(rows: Rows, limit: float, channels: int, side: int) -> Tensor:
    """Smooth fields of factors, the same for a slice's neighbors."""
    points = _draw(rows, math.log1p(limit), channels, _BIAS_FIELD_POINTS, _BIAS_FIELD_POINTS)
    return _between(points, side).exp()[:, None]


def _drop_modalities(sequences: Tensor, probability: float, reference: int, rows: Rows) -> Tensor:
    # in the data a missing sequence is a copy of the reference
    dropped = rows.rand(1, sequences.shape[2], 1, 1) < probability
    return torch.where(dropped, sequences[:, :, reference : reference + 1], sequences)


def _draw(rows: Rows, limit: float, *shape: int) -> Tensor:
    return (2 * rows.rand(*shape) - 1) * limit
