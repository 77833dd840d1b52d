"""Preprocessing of a volume, in operations that can be exported."""

from collections.abc import Callable, Mapping

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.nn import functional

from components.shared.dataset.gray import BINS, HISTOGRAM_STRIDE, WHITE_FRACTION

_HEAD_LEVEL = 0.1  # voxels below this fraction of their sequence's bright level are air
_BOX_LEVEL = 0.2  # the same for the box, which noise around the head must not widen
_HEAD_LINE = 0.05  # rows and columns with less than this fraction of the fullest one are air
_BOX_MARGIN = 1.05
_CLIP_DEVIATIONS = 6.0
_PERCENTILES = (0.10, 0.99)  # of Buda et al. 2019


def gray_levels(volume: Tensor) -> Tensor:
    """Maps each channel to gray levels, as `components.shared.dataset.gray` does with numpy.

    Args:
        volume: slices x height x width x channels, on any scale.

    Returns:
        float32 in 0..255, the same shape.
    """
    volume = volume.float()
    black, white = _black_and_white(volume)
    return ((volume - black.float()) * (255 / (white - black)).float()).clamp(max=255)


def _black_and_white(volume: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the values of gray levels 0 and 255 of each channel, float64."""
    black, highest = volume.amin((0, 1, 2)), volume.amax((0, 1, 2)).double()
    span = torch.where(highest == black, 1.0, highest - black.double())
    width = (span / BINS).float()
    sampled = volume[:, ::HISTOGRAM_STRIDE, ::HISTOGRAM_STRIDE]
    places = ((sampled - black) / width).clamp(max=BINS - 1).long().flatten(0, 2).t()
    bins = torch.zeros(places.shape[0], BINS, dtype=torch.long, device=volume.device)
    below = bins.scatter_add(1, places, torch.ones_like(places)).cumsum(1).double()
    edge = (below < WHITE_FRACTION * below[:, -1:]).sum(1) + 1
    black = black.double()
    return black, torch.where(highest == black, black + 1, black + edge * width.double())


def cut(slices: Tensor, box: Tensor, side: int) -> Tensor:
    """Crops slices to a box and resizes them to a square.

    Args:
        slices: float, slices x channels x height x width.
        box: Box in the form of `head_box`.
        side: Side of the result in pixels.

    Returns:
        slices x channels x side x side; each pixel is the mean of four samples.
    """
    return functional.avg_pool2d(sample(slices, box, 2 * side, 2 * side, padding="border"), 2)


def head_box(volume: Tensor, *, robust: bool = True) -> Tensor:
    """The square around the head, the same for all slices, with a small margin.

    Args:
        volume: uint8 or gray levels, slices x height x width x channels.
        robust: `False` finds the head by the largest voxel, as models of schema version 1 do.

    Returns:
        Center x, center y, half width, half height, in units where the image spans -1 to 1
        (`torch.nn.functional.affine_grid`). The whole image if nothing is bright. A few hot voxels
        in one sequence change nothing, see `head_statistics`.
    """
    height, width = volume.shape[1], volume.shape[2]
    level = _BOX_LEVEL * _bright(_histograms(volume)) if robust else _faint(volume)
    head = (volume.float() >= level.clamp(min=_HEAD_LEVEL)).any(3).float()
    left, right = _extent(head.mean((0, 1)))
    top, bottom = _extent(head.mean((0, 2)))
    half = torch.maximum((right - left) * width, (bottom - top) * height) * _BOX_MARGIN
    return torch.stack([left + right, top + bottom, half / width, half / height])


def _extent(head: Tensor) -> tuple[Tensor, Tensor]:
    # the lines that hold more head than noise does; all lines if none does
    found = head > _HEAD_LINE * head.amax()
    places = (torch.arange(head.shape[0], device=head.device) + 0.5) / head.shape[0] - 0.5
    first = torch.where(found, places, 0.5).amin()
    last = torch.where(found, places, -0.5).amax()
    empty = first >= last
    return torch.where(empty, -0.5, first), torch.where(empty, 0.5, last)


def inverse(box: Tensor) -> Tensor:
    """Returns the box that reverses a crop to `box`."""
    center, half = box[:2], box[2:]
    return torch.cat([-center / half, 1 / half])


def sample(images: Tensor, box: Tensor, height: int, width: int, padding: str) -> Tensor:
    """Samples images at the pixels of a box by linear interpolation.

    Args:
        images: float, count x channels x any height x any width.
        box: Box from `head_box` or `inverse`.
        height: Height of the result in pixels.
        width: Width of the result in pixels.
        padding: Padding outside the images: `zeros` or `border`.

    Returns:
        count x channels x height x width.
    """
    # not affine_grid: torch.export fixes the height and width that are passed to it
    rows = box[1] + box[3] * _pixel_centres(height, images.device)
    columns = box[0] + box[2] * _pixel_centres(width, images.device)
    grid = torch.stack([columns[None].expand(height, -1), rows[:, None].expand(-1, width)], dim=2)
    places = grid.expand(images.shape[0], height, width, 2)
    return functional.grid_sample(images, places, padding_mode=padding, align_corners=False)


def _pixel_centres(count: int, device: torch.device) -> Tensor:
    return (2 * torch.arange(count, device=device) + 1) / count - 1


def head_statistics(volume: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation of each channel inside the head.

    Air is excluded: voxels below a tenth of the channel's 99th percentile of non-zero voxels.

    Args:
        volume: uint8 or gray levels, slices x height x width x channels.

    Returns:
        Two float32 tensors of a value for each channel; the deviation is at least 1.
    """
    counts = _histograms(volume)
    levels = torch.arange(256, device=volume.device, dtype=torch.float32)
    inside = (levels > 0) & (levels >= _HEAD_LEVEL * _bright(counts)[:, None])
    return _moments(counts * inside, levels)


def _faint(volume: Tensor) -> Tensor:
    return _HEAD_LEVEL * volume.amax().float()


def _bright(counts: Tensor) -> Tensor:
    """Returns the 99th percentile of each sequence's voxels above 0, float32."""
    counts = counts * (torch.arange(256, device=counts.device) > 0)
    cumulated = counts.cumsum(1) / counts.sum(1, keepdim=True).clamp(min=1)
    return (cumulated < 0.99).sum(1).float()


def imagenet_statistics(channels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns mean and deviation of each channel in 0..1, as ImageNet weights expect them.

    Three channels have those of red, green and blue; any other number has the means of the three.
    """
    mean = torch.tensor(IMAGENET_DEFAULT_MEAN, device=device)
    deviation = torch.tensor(IMAGENET_DEFAULT_STD, device=device)
    if channels == 3:
        return mean, deviation
    return mean.mean().expand(channels), deviation.mean().expand(channels)


def _by_head(volume: Tensor, robust: bool = True) -> Tensor:
    del robust
    normal = _standardized(_slices(volume), *head_statistics(volume))
    return normal.clamp(-_CLIP_DEVIATIONS, _CLIP_DEVIATIONS)


def _by_percentiles(volume: Tensor, robust: bool = True) -> Tensor:
    """Normalizes as Buda et al. 2019 (crop_sample, normalize_volume in their utils.py).

    Faint voxels are air. All sequences together are clipped to percentiles and standardized. Their
    code calls faint what is below a tenth of the largest voxel of all sequences. One hot voxel
    erases the tumour of a dark sequence by that, so here it is a tenth of each one's bright level.
    """
    level = _HEAD_LEVEL * _bright(_histograms(volume)) if robust else _faint(volume)
    volume = torch.where(volume.float() < level, torch.zeros_like(volume), volume)
    box = head_box(volume, robust=robust)
    counts = _histograms(volume, _inside(box, volume.shape[1], volume.shape[2]))
    together = counts.sum(0)
    cumulated = together.cumsum(0) / together.sum().clamp(min=1)
    low, high = ((cumulated < share).sum().float() for share in _PERCENTILES)
    levels = torch.arange(256, device=volume.device, dtype=torch.float32).clamp(low, high)
    return _standardized(_slices(volume).clamp(low, high), *_moments(counts, levels))


def _by_imagenet(volume: Tensor, robust: bool = True) -> Tensor:
    del robust
    mean, deviation = imagenet_statistics(volume.shape[3], volume.device)
    return _standardized(_slices(volume) / 255, mean, deviation)


NORMALIZATIONS: Mapping[str, Callable[..., Tensor]] = {
    "head": _by_head,
    "percentiles": _by_percentiles,
    "imagenet": _by_imagenet,
}
"""Normalizations by their names in the recipe. Each maps a volume (uint8 or gray levels, slices x
height x width x channels) to float32, slices x channels x height x width, in standard deviations.
`robust` is that of `head_box`."""


def _slices(volume: Tensor) -> Tensor:
    return volume.permute(0, 3, 1, 2).float()


def _standardized(slices: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    shape = (1, slices.shape[1], 1, 1)
    return (slices - mean.view(shape)) / deviation.view(shape)


def _inside(box: Tensor, height: int, width: int) -> Tensor:
    """Returns 1 for pixels within a box and 0 for others, height x width."""
    rows = ((_pixel_centres(height, box.device) - box[1]).abs() <= box[3]).float()
    columns = ((_pixel_centres(width, box.device) - box[0]).abs() <= box[2]).float()
    return rows[:, None] * columns


def _histograms(volume: Tensor, inside: Tensor | None = None) -> Tensor:
    """Counts each of the 256 levels of each channel, inside if given: channels x 256."""
    channels = volume.shape[3]
    sample = volume[:, ::HISTOGRAM_STRIDE, ::HISTOGRAM_STRIDE]
    values = sample.reshape(-1, channels).t()
    values = (values.round() if values.is_floating_point() else values).long()
    weights = torch.ones_like(values, dtype=torch.float32)
    if inside is not None:
        counted = inside[::HISTOGRAM_STRIDE, ::HISTOGRAM_STRIDE].expand(sample.shape[:3])
        weights = weights * counted.reshape(-1)
    return torch.zeros(channels, 256, device=volume.device).scatter_add(1, values, weights)


def _moments(counts: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    total = counts.sum(1, keepdim=True).clamp(min=1)
    mean = (counts * levels).sum(1, keepdim=True) / total
    variance = (counts * (levels - mean) ** 2).sum(1, keepdim=True) / total
    return mean[:, 0], variance.sqrt().clamp(min=1.0)[:, 0]
