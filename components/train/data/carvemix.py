"""CarveMix: pastes tumours of other slices, with a margin around them.

Zhang et al. 2021, https://arxiv.org/abs/2108.06883. In contrast to the paper the margin never cuts
into the tumour, and its edge is soft.
"""

import torch
from scipy import ndimage
from torch import Tensor

LEAST_MARGIN, LARGEST_MARGIN = 1 / 32, 1 / 6  # fractions of a slice's side
_EDGE = 5  # width of the transition in pixels


def paste_tumour(
    image: Tensor, mask: Tensor, donor_image: Tensor, donor_mask: Tensor, margin: float
) -> tuple[Tensor, Tensor]:
    """Pastes a donor's tumour, with a margin around it, at its position in the donor.

    Args:
        image: float16 channels x side x side.
        mask: float32 fraction of each target in 0..1, targets x side x side.
        donor_image: Same form as `image`.
        donor_mask: Same form as `mask`.
        margin: Width around the tumour, as a fraction of the side.

    Returns:
        A new image and mask; within the margin the mask is the donor's.
    """
    width = 2 * round(margin * image.shape[-1]) + 1
    region = ndimage.maximum_filter((donor_mask > 0.5).any(0).numpy(), width)
    edge = torch.from_numpy(ndimage.uniform_filter(region.astype("float32"), _EDGE))
    pasted = torch.lerp(image.float(), donor_image.float(), edge)
    return pasted.to(image.dtype), torch.where(torch.from_numpy(region), donor_mask, mask)
