"""The optimizers, which the libraries have."""

from collections.abc import Sequence

import torch
from timm.optim.muon import Muon
from torch import nn
from torch.optim import Optimizer

from components.train.recipe import OptimizerSettings

BETAS = (0.9, 0.999)  # of AdamW, where the course of the learning rate does not move them


def build_optimizer(
    settings: OptimizerSettings, rest: Sequence[nn.Parameter], encoder: Sequence[nn.Parameter]
) -> Optimizer:
    """Makes the optimizer that the settings name.

    Muon takes matrices: the weights of a convolution are one, with a row for each channel that
    goes out. Its steps are as large as AdamW's would be (arXiv:2502.16982), so that one learning
    rate does for both. What is no matrix of several rows and columns (biases, norms, depthwise
    convolutions, the output) goes by AdamW with Nesterov's momentum and timm's second beta, 0.95.

    Args:
        settings: Its method and weight decay are of use here; a scheduler sets the rates.
        rest: All that is not the encoder.
        encoder: The encoder's parameters.

    Returns:
        With two groups, the encoder's behind that of the rest.
    """
    groups = [{"params": rest}, {"params": encoder}]
    if settings.method == "muon":
        return Muon(groups, weight_decay=settings.weight_decay, nesterov=True)
    return torch.optim.AdamW(groups, weight_decay=settings.weight_decay, betas=BETAS, fused=True)
