"""The U-Net of Buda et al. 2019 (https://doi.org/10.1016/j.compbiomed.2019.05.002)."""

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import Tensor, nn

FIRST_WIDTH = 32


class PlainUnet(nn.Module):
    """Ronneberger's U-Net with batch normalization and padding, 32 channels wide at first.

    Each stage halves the side and doubles the channels: with four of them 32 to 512, as in the
    paper.

    Args:
        channels: Channels of the input.
        stages: Number of times that the side is halved.
        classes: Channels of the output.
    """

    def __init__(self, channels: int, stages: int, classes: int = 1) -> None:
        super().__init__()
        widths = [FIRST_WIDTH * 2**stage for stage in range(stages + 1)]
        self.encoder = nn.ModuleList(_block(*pair) for pair in pairwise([channels, *widths]))
        self.pool = nn.MaxPool2d(2)
        falling = list(pairwise(reversed(widths)))
        self.up = nn.ModuleList(nn.ConvTranspose2d(*pair, 2, stride=2) for pair in falling)
        self.decoder = nn.ModuleList(_block(wide, narrow) for wide, narrow in falling)
        self.head = nn.Conv2d(FIRST_WIDTH, classes, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits of images.

        Args:
            images: float, count x channels x side x side, the side divisible by 2 ** stages.

        Returns:
            Logits, count x classes x side x side.
        """
        seen = [self.encoder[0](images)]
        for block in self.encoder[1:]:
            seen.append(block(self.pool(seen[-1])))
        features = seen.pop()
        for up, block in zip(self.up, self.decoder, strict=True):
            features = block(torch.cat([up(features), seen.pop()], dim=1))
        logits: Tensor = self.head(features)
        return logits


def _block(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False),
            norm1=nn.BatchNorm2d(width),
            relu1=nn.ReLU(inplace=True),
            conv2=nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False),
            norm2=nn.BatchNorm2d(width),
            relu2=nn.ReLU(inplace=True),
        )
    )
