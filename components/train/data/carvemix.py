"""Tumours of other slices, cut out with what is around them and pasted into a slice: CarveMix.

Zhang et al. 2021, https://arxiv.org/abs/2108.06883. Other than there the margin never cuts into the
tumour, and its edge is soft.
"""

import torch
from scipy import ndimage
from torch import Tensor

LEAST_MARGIN, LARGEST_MARGIN = 1 / 32, 1 / 6  # shares of a slice's side
_EDGE = 5  # pixels in which one slice passes into the other


def paste_tumour(
    image: Tensor, mask: Tensor, donor_image: Tensor, donor_mask: Tensor, margin: float
) -> tuple[Tensor, Tensor]:
    """Puts a donor's tumour, with a margin around it, where it is in the donor.

    Args:
        image: float16 channels x side x side.
        mask: float32 share of tumour in 0..1, 1 x side x side.
        donor_image: As `image`.
        donor_mask: As `mask`.
        margin: Around the tumour, as a share of the side.

    Returns:
        A new image and mask; within the margin, tumour is what it is in the donor.
    """
    width = 2 * round(margin * image.shape[-1]) + 1
    region = ndimage.maximum_filter(donor_mask[0].numpy() > 0.5, width)
    edge = torch.from_numpy(ndimage.uniform_filter(region.astype("float32"), _EDGE))
    pasted = torch.lerp(image.float(), donor_image.float(), edge)
    return pasted.to(image.dtype), torch.where(torch.from_numpy(region), donor_mask, mask)
