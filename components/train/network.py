"""The segmenter: normalisation, resizing and network in one exportable module."""

import copy

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn import functional

from components.shared.errors import UserError
from components.train.recipe import Network

_HISTOGRAM_STRIDE = 4  # every fourth row and column gives the same statistics 16 times faster
_HEAD_LEVEL = 0.1  # voxels below this share of the bright level are air
_HEAD_LINE = 0.05  # rows and columns with less than this share of the fullest one are air
_BOX_MARGIN = 1.05
_CLIP_DEVIATIONS = 6.0


class VolumeSegmenter(nn.Module):
    """Maps a whole uint8 volume to tumour probabilities.

    Training uses the parts (`prepare`, `with_neighbours`, `network`, `restore`), `forward`
    chains them; so what is served is what was trained.
    """

    def __init__(self, network: nn.Module, image_size: int, context_slices: int) -> None:
        super().__init__()
        self.network = network
        self.image_size = image_size
        self.context_slices = context_slices

    def forward(self, volume: Tensor) -> Tensor:
        """Predicts one volume.

        Args:
            volume: uint8, slices x height x width x 3.

        Returns:
            Probability of tumour, float32, slices x height x width.
        """
        prepared = with_neighbours(self.prepare(volume), self.context_slices)
        logits = self.network(prepared)
        return self.restore(logits, head_box(volume), volume.shape[1], volume.shape[2])

    def prepare(self, volume: Tensor) -> Tensor:
        """Normalises a volume by its own statistics and cuts its slices to the head.

        Args:
            volume: uint8, slices x height x width x 3.

        Returns:
            float32, slices x 3 x image_size x image_size, in standard deviations.
        """
        mean, deviation = head_statistics(volume)
        slices = volume.permute(0, 3, 1, 2).float()
        normal = (slices - mean.view(1, 3, 1, 1)) / deviation.view(1, 3, 1, 1)
        normal = normal.clamp(-_CLIP_DEVIATIONS, _CLIP_DEVIATIONS)
        return cut(normal, head_box(volume), self.image_size)

    def restore(self, logits: Tensor, box: Tensor, height: int, width: int) -> Tensor:
        """Puts the network's output back to where the head was.

        Args:
            logits: slices x 1 x image_size x image_size.
            box: What `head_box` gave for the volume.
            height: Of the volume, in pixels.
            width: Of the volume, in pixels.

        Returns:
            Probability, float32, slices x height x width; 0 outside the box.
        """
        probability = torch.sigmoid(logits.float())
        placed = _sample(probability, _inverse(box), height, width, padding="zeros")
        return placed[:, 0]


def cut(slices: Tensor, box: Tensor, side: int) -> Tensor:
    """Cuts slices to a box and resizes them to a square.

    Args:
        slices: float, slices x channels x height x width.
        box: What `head_box` gave.
        side: Of the result, in pixels.

    Returns:
        slices x channels x side x side; each pixel is the mean of four samples.
    """
    return functional.avg_pool2d(_sample(slices, box, 2 * side, 2 * side, padding="border"), 2)


def head_box(volume: Tensor) -> Tensor:
    """The square around the head, the same for all slices, with a small margin.

    Args:
        volume: uint8, slices x height x width x 3.

    Returns:
        Centre x, centre y, half width, half height, in units where the image spans -1 to 1
        (`torch.nn.functional.affine_grid`); the whole image where nothing is bright.
    """
    height, width = volume.shape[1], volume.shape[2]
    head = (volume.amax(3).float() >= _HEAD_LEVEL * volume.amax().float().clamp(min=1)).float()
    left, right = _extent(head.mean((0, 1)))
    top, bottom = _extent(head.mean((0, 2)))
    half = torch.maximum((right - left) * width, (bottom - top) * height) * _BOX_MARGIN
    return torch.stack([left + right, top + bottom, half / width, half / height])


def _extent(share: Tensor) -> tuple[Tensor, Tensor]:
    # of lines that hold more head than noise does; the whole line where none does
    found = share > _HEAD_LINE * share.amax()
    places = (torch.arange(share.shape[0], device=share.device) + 0.5) / share.shape[0] - 0.5
    first = torch.where(found, places, 0.5).amin()
    last = torch.where(found, places, -0.5).amax()
    empty = first >= last
    return torch.where(empty, -0.5, first), torch.where(empty, 0.5, last)


def _inverse(box: Tensor) -> Tensor:
    centre, half = box[:2], box[2:]
    return torch.cat([-centre / half, 1 / half])


def _sample(images: Tensor, box: Tensor, height: int, width: int, padding: str) -> Tensor:
    # not affine_grid: torch.export fixes the height and width that are passed to it
    rows = box[1] + box[3] * _pixel_centres(height, images.device)
    columns = box[0] + box[2] * _pixel_centres(width, images.device)
    grid = torch.stack([columns[None].expand(height, -1), rows[:, None].expand(-1, width)], dim=2)
    places = grid.expand(images.shape[0], height, width, 2)
    return functional.grid_sample(images, places, padding_mode=padding, align_corners=False)


def _pixel_centres(count: int, device: torch.device) -> Tensor:
    return (2 * torch.arange(count, device=device) + 1) / count - 1


def head_statistics(volume: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel inside the head.

    Air is left out: voxels below a tenth of the channel's 99th percentile of non-zero voxels.

    Args:
        volume: uint8, slices x height x width x 3.

    Returns:
        Two float32 tensors of three values; the deviation is at least 1.
    """
    sample = volume[:, ::_HISTOGRAM_STRIDE, ::_HISTOGRAM_STRIDE]
    values = sample.reshape(-1, 3).t().long()
    counts = torch.zeros(3, 256, device=volume.device).scatter_add(
        1, values, torch.ones_like(values, dtype=torch.float32)
    )
    levels = torch.arange(256, device=volume.device, dtype=torch.float32)
    counts = counts * (levels > 0)
    cumulated = counts.cumsum(1) / counts.sum(1, keepdim=True).clamp(min=1)
    bright = (cumulated < 0.99).sum(1, keepdim=True)
    inside = counts * (levels >= _HEAD_LEVEL * bright)
    total = inside.sum(1, keepdim=True).clamp(min=1)
    mean = (inside * levels).sum(1, keepdim=True) / total
    variance = (inside * (levels - mean) ** 2).sum(1, keepdim=True) / total
    return mean[:, 0], variance.sqrt().clamp(min=1.0)[:, 0]


def with_neighbours(prepared: Tensor, context_slices: int) -> Tensor:
    """Adds each slice's neighbours as channels; the ends repeat the outermost slice.

    Args:
        prepared: slices x 3 x side x side.
        context_slices: Neighbours on each side.

    Returns:
        slices x 3 (2 context_slices + 1) x side x side, from the slice before to the one after.
    """
    shifted = [prepared]
    before = after = prepared
    for _ in range(context_slices):
        before = torch.cat([before[:1], before[:-1]])
        after = torch.cat([after[1:], after[-1:]])
        shifted = [before, *shifted, after]
    return torch.cat(shifted, dim=1)


def freeze_unused(segmenter: VolumeSegmenter) -> None:
    """Takes parameters out of the training that its output does not depend on.

    An encoder keeps the stages behind `encoder_depth`. They get no gradient; processes that train
    together wait for each other's gradient of every parameter that is to have one.
    """
    tried = copy.deepcopy(segmenter.network).eval()
    channels = 3 * (2 * segmenter.context_slices + 1)
    side = segmenter.image_size
    tried(torch.zeros(1, channels, side, side)).sum().backward()
    pairs = zip(segmenter.network.parameters(), tried.parameters(), strict=True)
    for own, other in pairs:
        own.requires_grad_(other.grad is not None)


def build_segmenter(settings: Network) -> VolumeSegmenter:
    """Makes the network that the settings describe.

    Raises:
        UserError: If the library lacks the architecture or the encoder, or the ImageNet
            weights cannot be downloaded.
    """
    options = {"decoder_channels": settings.decoder_channels} if settings.decoder_channels else {}
    try:
        network = smp.create_model(
            settings.architecture,
            encoder_name=settings.encoder,
            encoder_depth=settings.encoder_depth,
            encoder_weights=None
            if settings.encoder_weights == "none"
            else settings.encoder_weights,
            in_channels=3 * (2 * settings.context_slices + 1),
            classes=1,
            **options,
        )
    except OSError as error:  # hub errors and lost connections are OSErrors
        raise UserError(
            f"ImageNet weights of {settings.encoder} cannot be downloaded "
            f"({type(error).__name__}); go on without by train.network.encoder_weights=none"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"no network {settings.architecture} with encoder {settings.encoder}: {error}"
        ) from error
    return VolumeSegmenter(network, settings.image_size, settings.context_slices)
