"""Augmentation of a whole batch at once, on the device it is on."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from components.shared.dataset.volumes import CHANNELS, FLAIR
from components.train.recipe import Augmentation


def augment(images: Tensor, masks: Tensor, sizes: Augmentation) -> tuple[Tensor, Tensor]:
    """Turns, zooms, mirrors, brightens and impoverishes each slice by its own random draw.

    Args:
        images: float, batch x channels x side x side; channels are whole slices of three
            sequences, see `components.train.network.with_neighbours`.
        masks: float in 0..1, batch x 1 x side x side; moved with its image.
        sizes: Of the changes.

    Returns:
        Changed images and masks of the same shapes.
    """
    grid = functional.affine_grid(
        _placements(len(images), sizes, images.device), list(masks.shape), align_corners=False
    )
    images = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    masks = functional.grid_sample(masks, grid, padding_mode="border", align_corners=False)
    count, channels, side, _ = images.shape
    sequences = images.view(count, channels // len(CHANNELS), len(CHANNELS), side, side)
    sequences = _brighten(sequences, sizes.intensity_shift)
    return _lose_sequences(sequences, sizes.missing_sequence_share).flatten(1, 2), masks


def _placements(count: int, sizes: Augmentation, device: torch.device) -> Tensor:
    angle = _draw(count, math.radians(sizes.rotation_degrees), device)
    zoom = 1 + _draw(count, sizes.scale_factor, device)
    mirror = torch.where(torch.rand(count, device=device) < 0.5, -1.0, 1.0)
    cosine, sine, zero = angle.cos() * zoom, angle.sin() * zoom, torch.zeros_like(angle)
    first_row = torch.stack([cosine * mirror, -sine, zero], dim=1)
    second_row = torch.stack([sine * mirror, cosine, zero], dim=1)
    return torch.stack([first_row, second_row], dim=1)


def _brighten(sequences: Tensor, limit: float) -> Tensor:
    count = len(sequences) * len(CHANNELS)
    shape = (len(sequences), 1, len(CHANNELS), 1, 1)
    gain = 1 + _draw(count, limit, sequences.device).view(shape)
    return sequences * gain + _draw(count, limit, sequences.device).view(shape)


def _lose_sequences(sequences: Tensor, share: float) -> Tensor:
    # as in the data, a sequence that was not taken is a copy of FLAIR
    shape = (len(sequences), 1, len(CHANNELS), 1, 1)
    lost = torch.rand(shape, device=sequences.device) < share
    return torch.where(lost, sequences[:, :, FLAIR : FLAIR + 1], sequences)


def _draw(count: int, limit: float, device: torch.device) -> Tensor:
    return (2 * torch.rand(count, device=device) - 1) * limit
