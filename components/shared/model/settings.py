"""Settings of the network."""

import re
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, Field, PositiveInt, model_validator
from pydantic_core import PydanticCustomError

from components.shared.config import Config
from components.shared.model.weights_uri import (
    IMAGENET,
    check_encoder_weights,
    check_initial_weights,
)

Architecture = Literal[
    "unet",
    "unetplusplus",
    "manet",
    "linknet",
    "fpn",
    "pspnet",
    "deeplabv3",
    "deeplabv3plus",
    "pan",
    "upernet",
    "segformer",
    "dpt",
    "plain_unet",
]
"""All decoders of `segmentation_models_pytorch`, which only the trainer's image has, and ours."""


_STAGED_DECODERS = ("unet", "unetplusplus", "manet")  # with a width for each stage

_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def _check_architecture(name: str) -> str:
    allowed = get_args(Architecture)
    if name in allowed or _FUNCTION.fullmatch(name):
        return name
    raise PydanticCustomError(
        "literal_error",
        "Input should be {expected} or package.module:function",
        {"expected": ", ".join(map(repr, allowed))},
    )


class Network(Config):
    """Network and preprocessing.

    Attributes:
        architecture: A decoder of `segmentation_models_pytorch`, e.g. `unet`, `fpn`; or
            `plain_unet`, the U-Net of Buda et al. 2019 without any encoder of a library; or
            `package.module:function`, a network of your own (see docs/how-to/add-a-network.md).
        encoder: An encoder of `segmentation_models_pytorch`, e.g. `resnet18`, or `tu-` and the
            name of one of timm's networks.
        encoder_weights: `imagenet`; `none` starts from random ones; or the URI of a file (see
            docs/how-to/pretrained-weights.md). They are fetched once, into the store.
        initial_weights: Weights of an earlier model of the same architecture, from which the
            whole network starts (a warm start): `champion`, `models:/...`, `runs:/...` or the URI
            of a file. `None`, or no champion yet, starts from `encoder_weights`.
        encoder_depth: Stages of the encoder that are used; each halves the resolution.
        decoder_channels: Widths of the decoder's stages, as many as the encoder has, where it has
            some (U-Net, U-Net++, MA-Net); `None` takes the library's first ones.
        image_size: Side in pixels to which slices are resized inside the model.
        context_slices: Neighbors on each side that are shown to the network as channels
            (a 2.5D network).
        sequences: `all` channels, or the `reference` alone, which every scan has.
        normalization: `head` scales each sequence by its mean and deviation inside the head;
            `percentiles` by those of the head's box cut to its 10th and 99th percentile (Buda et
            al. 2019); `imagenet` by the statistics that ImageNet weights were trained with:
            those of red, green and blue for three channels, else the mean of these for each.
        crop: Slices are cut to the `head`, or taken whole (`none`).
        test_time_flip: `True` to average the predictions for slices and their mirror images
            (test-time augmentation), in validation and in the stored model. A prediction takes
            twice the time.
        min_component_fraction: Least size of a component of a predicted mask as a fraction of the
            largest one. Smaller ones are removed; 0 keeps all.
    """

    architecture: Annotated[str, AfterValidator(_check_architecture)] = "unet"
    encoder: str = "resnet18"
    encoder_weights: Annotated[str, AfterValidator(check_encoder_weights)] = "imagenet"
    initial_weights: Annotated[str, AfterValidator(check_initial_weights)] | None = None
    encoder_depth: int = Field(default=5, ge=3, le=5)
    decoder_channels: tuple[PositiveInt, ...] | None = None
    image_size: int = Field(default=256, ge=32, le=1024, multiple_of=32)
    context_slices: int = Field(default=1, ge=0, le=3)
    sequences: Literal["all", "reference"] = "all"
    normalization: Literal["head", "percentiles", "imagenet"] = "head"
    crop: Literal["head", "none"] = "head"
    test_time_flip: bool = False
    min_component_fraction: float = Field(default=0.0, ge=0.0, le=1.0)

    @property
    def slices_seen(self) -> int:
        """Number of slices that the network sees at once: one and its neighbors."""
        return 2 * self.context_slices + 1

    @property
    def is_users(self) -> bool:
        """`True` if the network is a function of the user's."""
        return ":" in self.architecture

    @property
    def has_encoder(self) -> bool:
        """`True` if the network has an encoder of a library."""
        return self.architecture != "plain_unet" and not self.is_users

    @property
    def encoder_source(self) -> str | None:
        """Source of the encoder's weights; `None` if they are random or the user's network's."""
        if self.encoder_weights == "imagenet":
            return f"{IMAGENET}{self.encoder}" if self.has_encoder else None
        return None if self.encoder_weights == "none" else self.encoder_weights

    @model_validator(mode="after")
    def _decoder_fits(self) -> Self:
        widths = None if self.is_users else self.decoder_channels
        if widths is not None and self.architecture not in _STAGED_DECODERS:
            having = ", ".join(_STAGED_DECODERS)
            raise ValueError(f"decoder_channels are of {having}; {self.architecture} has none")
        if widths is not None and len(widths) != self.encoder_depth:
            raise ValueError(f"{len(widths)} widths for {self.encoder_depth} stages")
        return self

    @model_validator(mode="after")
    def _weights_exist(self) -> Self:
        if self.architecture == "plain_unet" and self.encoder_weights != "none":
            raise ValueError("plain_unet has no encoder; it takes encoder_weights=none")
        return self
