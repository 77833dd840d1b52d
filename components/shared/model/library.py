"""Encoders of segmentation_models_pytorch and timm."""

import segmentation_models_pytorch as smp
import timm

from components.shared.config import in_words, nearest
from components.shared.errors import UserError
from components.shared.model.settings import Network

TIMM_PREFIX = "tu-"  # smp's mark for the names of timm


def check_encoder(network: Network, place: str) -> None:
    """Refuses an encoder that the libraries lack; `place` is that of the settings in a message.

    Raises:
        UserError: If smp has no encoder of the name, and timm no network.
    """
    if not network.has_encoder or _is_known(network.encoder):
        return
    known = [
        *smp.encoders.get_encoder_names(),
        *(TIMM_PREFIX + name for name in timm.list_models()),
    ]
    found = in_words(nearest(network.encoder, known, most=3))
    raise UserError(
        f"{place}.encoder={network.encoder!r} is not known{found}; allowed are those of "
        "https://smp.readthedocs.io/en/latest/encoders.html, and "
        f"{TIMM_PREFIX}NAME for every NAME in timm.list_models()"
    )


def check_weights(network: Network, place: str) -> None:
    """Refuses ImageNet weights for a known encoder that has none.

    Raises:
        UserError: If neither smp nor timm has ImageNet weights for the encoder.
    """
    wanted = network.has_encoder and network.encoder_weights == "imagenet"
    if not wanted or _has_weights(network.encoder):
        return
    raise UserError(
        f"{place}.encoder={network.encoder} has no ImageNet weights; start from random ones by "
        f"{place}.encoder_weights=none, or use another encoder"
    )


def _has_weights(encoder: str) -> bool:
    if encoder.startswith(TIMM_PREFIX):
        return bool(timm.is_model_pretrained(encoder.removeprefix(TIMM_PREFIX)))
    return "imagenet" in smp.encoders.encoders[encoder]["pretrained_settings"]


def _is_known(encoder: str) -> bool:
    if not encoder.startswith(TIMM_PREFIX):
        return encoder in smp.encoders.get_encoder_names()
    name = encoder.removeprefix(TIMM_PREFIX)
    with_weights = "." in name  # e.g. resnet18.a1_in1k
    return name in timm.list_models(include_tags=True) if with_weights else timm.is_model(name)
