"""fastai's default augmentation (`aug_transforms`), by torchvision's equivalents.

https://docs.fast.ai/vision.augment.html#aug_transforms: mirror with probability 0.5, rotation up to
10 degrees, zoom up to 1.1, warp and brightness up to 0.2, each with probability 0.75. Differences:
brightness and contrast share one draw. Contrast is around the mean of a slice's luminance, or of
each channel where there are not three. Brightness is a factor instead of a shift of the logit. A
warp only narrows sides of the image. Pixels from outside are black instead of reflected.
"""

from typing import cast

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from components.shared.model.preparation import imagenet_statistics

_SMOOTH = v2.InterpolationMode.BILINEAR
_PROBABILITY = 0.75
_GEOMETRY = v2.Compose(
    [
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.RandomRotation(10, interpolation=_SMOOTH)], _PROBABILITY),
        v2.RandomApply([v2.RandomAffine(0, scale=(1.0, 1.1), interpolation=_SMOOTH)], _PROBABILITY),
        v2.RandomPerspective(0.2, p=_PROBABILITY, interpolation=_SMOOTH),
    ]
)
_COLOR = v2.RandomApply([v2.ColorJitter(brightness=0.2, contrast=0.2)], _PROBABILITY)


def augment_as_fastai(
    images: Tensor, masks: Tensor, draws: Tensor, channels: int
) -> tuple[Tensor, Tensor]:
    """Changes each slice and its neighbors alike, by one draw.

    Args:
        images: float, batch x stack x side x side, normalized by ImageNet's statistics; a stack
            has all channels of a slice and its neighbors.
        masks: float in 0..1, batch x targets x side x side; moved with its image.
        draws: Uniform random numbers in 0..1, one per slice.
        channels: Number of channels of a slice.

    Returns:
        Changed images and masks of the same shapes.
    """
    expected = imagenet_statistics(channels, images.device)
    mean, deviation = (one.view(channels, 1, 1) for one in expected)
    slices = images.view(len(images), -1, channels, *images.shape[2:]) * deviation + mean
    seeds = (draws * 2**31).long().tolist()
    changed = [
        _change(photograph, mask, seed)
        for photograph, mask, seed in zip(slices, masks, seeds, strict=True)
    ]
    photographs, moved = (torch.stack(parts) for parts in zip(*changed, strict=True))
    return ((photographs - mean) / deviation).flatten(1, 2), moved


def _change(photograph: Tensor, mask: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    # an image too: torchvision moves masks by whole pixels
    pair = tv_tensors.Image(photograph.clamp(0, 1)), tv_tensors.Image(mask)
    image, moved = _GEOMETRY(*pair)
    return _recolor(image).as_subclass(Tensor), moved.as_subclass(Tensor)


def _recolor(image: Tensor) -> Tensor:
    """Changes colors; torchvision does so for one or three channels only."""
    if image.shape[1] == 3:
        return cast(Tensor, _COLOR(image))
    alone = tv_tensors.Image(image.reshape(-1, 1, *image.shape[2:]))
    return cast(Tensor, _COLOR(alone)).reshape(image.shape)
