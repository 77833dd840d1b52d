"""fastai's default augmentation (`aug_transforms`) by torchvision's equivalents.

https://docs.fast.ai/vision.augment.html#aug_transforms: mirrored by half, turned by up to 10
degrees, zoomed up to 1.1, warped and brightened by up to 0.2, each with a chance of 0.75. Not as
there: brightness and contrast share one chance, brightness is a factor and not a shift of the
logit, a warp only narrows sides of the picture and never widens them, and
what comes in from outside is black and not a reflection.
"""

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from components.shared.dataset.volumes import CHANNELS
from components.shared.model.preparation import imagenet_statistics

_SMOOTH = v2.InterpolationMode.BILINEAR
_CHANCE = 0.75
_TRANSFORMS = v2.Compose(
    [
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.RandomRotation(10, interpolation=_SMOOTH)], _CHANCE),
        v2.RandomApply([v2.RandomAffine(0, scale=(1.0, 1.1), interpolation=_SMOOTH)], _CHANCE),
        v2.RandomPerspective(0.2, p=_CHANCE, interpolation=_SMOOTH),
        v2.RandomApply([v2.ColorJitter(brightness=0.2, contrast=0.2)], _CHANCE),
    ]
)


def augment_as_fastai(images: Tensor, masks: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Changes each slice, with its neighbours, by its own draw.

    Args:
        images: float, batch x channels x side x side, normalized by ImageNet's statistics;
            channels are whole slices of three sequences.
        masks: float in 0..1, batch x 1 x side x side; moved with its image.
        draws: Uniform in 0..1, one a slice.

    Returns:
        Changed images and masks of the same shapes.
    """
    mean, deviation = (one.view(len(CHANNELS), 1, 1) for one in imagenet_statistics(images.device))
    count, _, height, width = images.shape
    slices = images.view(count, -1, len(CHANNELS), height, width) * deviation + mean
    seeds = (draws * 2**31).long().tolist()
    changed = [
        _change(photograph, mask, seed)
        for photograph, mask, seed in zip(slices, masks, seeds, strict=True)
    ]
    photographs, moved = (torch.stack(parts) for parts in zip(*changed, strict=True))
    return ((photographs - mean) / deviation).flatten(1, 2), moved


def _change(photograph: Tensor, mask: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    image, moved = _TRANSFORMS(tv_tensors.Image(photograph.clamp(0, 1)), tv_tensors.Mask(mask))
    return image.as_subclass(Tensor), moved.as_subclass(Tensor)
