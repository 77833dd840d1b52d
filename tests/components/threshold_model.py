"""A stored segmenter that is a threshold on FLAIR."""

import math

import numpy as np
import torch
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from components.shared.dataset.channels import LGG_TARGETS
from components.shared.model.model_folder import write_segmenter
from components.shared.model.network import build_segmenter
from components.shared.model.settings import Network

_NETWORK = Network(
    architecture="plain_unet",
    encoder_weights="none",
    encoder_depth=3,
    image_size=32,
    context_slices=0,
    normalization="imagenet",
    crop="none",
)
_SHIFT = 3.0  # makes all normalized values positive: the network's ReLUs change none


def write_threshold_model(folder, *levels, targets=LGG_TARGETS):
    """Writes the model folder of a segmenter whose probability is 0.5 where FLAIR is at a level.

    It has a level for each target. It answers NaN where the level is NaN.
    """
    segmenter = build_segmenter(_NETWORK, is_tried=False, targets=targets).eval()
    network = segmenter.network
    with torch.no_grad():
        for weights in network.parameters():
            weights.zero_()
        _pass_on(network.encoder[0].conv1, 1)
        network.encoder[0].norm1.bias[0] = _SHIFT
        _pass_on(network.encoder[0].conv2, 0)
        _pass_on(network.decoder[-1].conv1, 32)  # after the 32 channels from below
        _pass_on(network.decoder[-1].conv2, 0)
        for block in (network.encoder[0], network.decoder[-1]):
            block.norm1.weight[0] = block.norm2.weight[0] = 1
        for target, level in enumerate(levels):
            _answer(network, level, target)
    folder.mkdir()
    write_segmenter(segmenter, folder)
    image = TensorSpec(np.dtype("uint8"), (-1, -1, -1, 3))
    example = {"artifact_path": "input_example.json"}
    signature = ModelSignature(Schema([image]))
    Model(signature=signature, saved_input_example_info=example).save(str(folder / "MLmodel"))


def _answer(network, level, target):
    if math.isnan(level):  # of finite weights: infinity minus infinity
        _pass_on(network.decoder[-1].conv2, 0, 1)
        network.decoder[-1].norm2.weight[1] = 1
        network.head.weight[target, 0], network.head.weight[target, 1] = 3e38, -3e38
    else:
        network.head.weight[target, 0] = 255 * 0.224 / 8
        network.head.bias[target] = (255 * (0.456 - 0.224 * _SHIFT) - level) / 8


def _pass_on(convolution, channel, to=0):
    convolution.weight[to, channel, 1, 1] = 1
