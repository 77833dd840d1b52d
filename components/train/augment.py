"""Augmentation of a whole batch at once, on the device it is on."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from components.shared.dataset.volumes import CHANNELS, FLAIR
from components.train.augment_fastai import augment_as_fastai
from components.train.recipe import Augmentation


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
    images: Tensor, masks: Tensor, sizes: Augmentation, rows: Rows
) -> tuple[Tensor, Tensor]:
    """Turns, zooms, mirrors, brightens and impoverishes each slice by its own random draw.

    Args:
        images: float, batch x channels x side x side; channels are whole slices of three
            sequences, see `components.train.network.with_neighbours`.
        masks: float in 0..1, batch x 1 x side x side; moved with its image.
        sizes: Of the changes.
        rows: Which slices of the step's batch these are.

    Returns:
        Changed images and masks of the same shapes.
    """
    if sizes.policy == "fastai":
        return augment_as_fastai(images, masks, rows.rand())
    placements = _placements(rows, sizes)
    grid = functional.affine_grid(placements, list(masks.shape), align_corners=False)
    images = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    masks = functional.grid_sample(masks, grid, padding_mode="border", align_corners=False)
    count, channels, side, _ = images.shape
    sequences = images.view(count, channels // len(CHANNELS), len(CHANNELS), side, side)
    sequences = _brighten(sequences, sizes.intensity_shift, rows)
    return _lose_sequences(sequences, sizes.missing_sequence_share, rows).flatten(1, 2), masks


def _placements(rows: Rows, sizes: Augmentation) -> Tensor:
    angle = _draw(rows, math.radians(sizes.rotation_degrees))
    zoom = 1 + _draw(rows, sizes.scale_factor)
    mirror = torch.where(rows.rand() < 0.5, -1.0, 1.0)
    cosine, sine, zero = angle.cos() * zoom, angle.sin() * zoom, torch.zeros_like(angle)
    first_row = torch.stack([cosine * mirror, -sine, zero], dim=1)
    second_row = torch.stack([sine * mirror, cosine, zero], dim=1)
    return torch.stack([first_row, second_row], dim=1)


def _brighten(sequences: Tensor, limit: float, rows: Rows) -> Tensor:
    shape = (1, len(CHANNELS), 1, 1)
    gain = 1 + _draw(rows, limit, *shape)
    return sequences * gain + _draw(rows, limit, *shape)


def _lose_sequences(sequences: Tensor, share: float, rows: Rows) -> Tensor:
    # as in the data, a sequence that was not taken is a copy of FLAIR
    lost = rows.rand(1, len(CHANNELS), 1, 1) < share
    return torch.where(lost, sequences[:, :, FLAIR : FLAIR + 1], sequences)


def _draw(rows: Rows, limit: float, *shape: int) -> Tensor:
    return (2 * rows.rand(*shape) - 1) * limit
