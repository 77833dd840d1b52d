"""The network's part of a training step, tried without effect."""

import copy

import lightning
import torch
from torch import Tensor, nn

from components.shared.threads import Work


def rehearsal(
    network: nn.Module,
    trainer: lightning.Trainer,
    images: Tensor,
    side: int,
) -> Work:
    """Forward and backward of a batch through a copy, whose gradients nobody uses.

    Args:
        network: What is trained.
        trainer: Whose precision it is done in.
        images: Of the batch, in any precision.
        side: In pixels, of what the network sees of them; here a corner is as good.
    """
    copied = copy.deepcopy(network)
    batch = images[..., :side, :side].float().contiguous(memory_format=torch.channels_last)

    def work() -> None:
        with trainer.precision_plugin.forward_context():
            output = copied(batch)
        output.float().sum().backward()

    return work
