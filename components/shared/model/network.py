"""The segmenter: normalization, resizing and network in one exportable module."""

import copy
import inspect
from collections.abc import Iterable, Sequence
from typing import cast

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from components.shared.dataset.volumes import CHANNELS, FLAIR
from components.shared.errors import UserError
from components.shared.model.library import check_encoder, check_weights
from components.shared.model.plain_unet import PlainUnet
from components.shared.model.preparation import NORMALIZATIONS, cut, head_box, inverse, sample
from components.shared.model.settings import Network

# how smp, timm and torch refuse what does not go together, when a network is made and when it is
# shown a slice
_REFUSALS = (LookupError, TypeError, ValueError, RuntimeError, AssertionError)


class VolumeSegmenter(nn.Module):
    """Maps a whole uint8 volume to tumour probabilities.

    Training uses the parts (`prepare`, `with_neighbours`, `network`, `answer`, `restore`),
    `forward` chains them; so what is served is what was trained.
    """

    def __init__(self, network: nn.Module, settings: Network) -> None:
        super().__init__()
        self.network = network
        self.image_size = settings.image_size
        self.context_slices = settings.context_slices
        self.min_component_fraction = settings.min_component_fraction
        self._normalize = NORMALIZATIONS[settings.normalization]
        self._crop = settings.crop
        self._flair_only = settings.sequences == "flair"
        self._mirrored_too = settings.test_time_flip

    def forward(self, volume: Tensor) -> Tensor:
        """Predicts one volume.

        Args:
            volume: uint8, slices x height x width x 3.

        Returns:
            Probability of tumour, float32, slices x height x width.
        """
        prepared = with_neighbours(self.prepare(volume), self.context_slices)
        logits = self.answer(prepared)
        return self.restore(logits, self.box(volume), volume.shape[1], volume.shape[2])

    def box(self, volume: Tensor) -> Tensor:
        """What slices are cut to, in the form of `head_box`.

        Args:
            volume: uint8, slices x height x width x 3.
        """
        if self._crop == "head":
            return head_box(self._seen(volume))
        return torch.tensor([0.0, 0.0, 1.0, 1.0], device=volume.device)

    def prepare(self, volume: Tensor) -> Tensor:
        """Normalizes a volume and cuts its slices to the head.

        Args:
            volume: uint8, slices x height x width x 3.

        Returns:
            float32, slices x 3 x image_size x image_size, in standard deviations.
        """
        return cut(self._normalize(self._seen(volume)), self.box(volume), self.image_size)

    def _seen(self, volume: Tensor) -> Tensor:
        """A network for FLAIR has nothing of the others, in box and statistics neither.

        It learns from whole scans and predicts those that lack a sequence, which is a copy of
        FLAIR there; so it sees copies everywhere.
        """
        return volume[..., FLAIR, None].expand_as(volume) if self._flair_only else volume

    def answer(self, stacked: Tensor) -> Tensor:
        """What the network says of slices outside its training.

        Args:
            stacked: Slices with their neighbours, as in `with_neighbours`.

        Returns:
            Logits, slices x 1 x image_size x image_size; with `test_time_flip` the mean of those
            for the slices and those for their mirror images.
        """
        logits: Tensor = self.network(stacked)
        if self._mirrored_too:
            logits = (logits + self.network(stacked.flip(3)).flip(3)) / 2
        return logits

    def restore(self, logits: Tensor, box: Tensor, height: int, width: int) -> Tensor:
        """Puts the network's output back to where the head was.

        Args:
            logits: slices x 1 x image_size x image_size, as from `answer`.
            box: What `head_box` gave for the volume.
            height: Of the volume, in pixels.
            width: Of the volume, in pixels.

        Returns:
            Probability, float32, slices x height x width; 0 outside the box.
        """
        probability = torch.sigmoid(logits.float())
        placed = sample(probability, inverse(box), height, width, padding="zeros")
        return placed[:, 0]


def with_neighbours(prepared: Tensor, context_slices: int) -> Tensor:
    """Adds each slice's neighbours as channels; the ends repeat the outermost slice.

    Args:
        prepared: slices x 3 x side x side.
        context_slices: Neighbours on each side.

    Returns:
        slices x 3 (2 context_slices + 1) x side x side, from the slice before to the one after.
    """
    shifted = [prepared]
    before = after = prepared
    for _ in range(context_slices):
        before = torch.cat([before[:1], before[:-1]])
        after = torch.cat([after[1:], after[-1:]])
        shifted = [before, *shifted, after]
    return torch.cat(shifted, dim=1)


def freeze_unused(segmenter: VolumeSegmenter) -> None:
    """Takes parameters out of the training that its output does not depend on.

    An encoder keeps the stages behind `encoder_depth`. They get no gradient; processes that train
    together wait for each other's gradient of every parameter that is to have one.
    """
    tried = copy.deepcopy(segmenter.network).eval()
    channels = 3 * (2 * segmenter.context_slices + 1)
    side = segmenter.image_size
    tried(torch.zeros(1, channels, side, side)).sum().backward()
    pairs = zip(segmenter.network.parameters(), tried.parameters(), strict=True)
    for own, other in pairs:
        own.requires_grad_(other.grad is not None)


class FlairOnly(nn.Module):
    """Shows a network the FLAIR channels of what a network for all sequences would see."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @property
    def encoder(self) -> nn.Module:
        """The network's."""
        return cast(nn.Module, self.network.encoder)

    def forward(self, images: Tensor) -> Tensor:
        """Logits; images as in `with_neighbours`."""
        return cast(Tensor, self.network(images[:, FLAIR :: len(CHANNELS)]))


class PairedSegmenter(nn.Module):
    """A segmenter for whole scans and one for scans that lack a sequence.

    A sequence that was not taken is a copy of FLAIR. Both predict, one is taken: a program that
    is exported has no branches.

    Args:
        whole: For scans with all sequences.
        flair: For the others.
    """

    def __init__(self, whole: VolumeSegmenter, flair: VolumeSegmenter) -> None:
        super().__init__()
        self.whole = whole
        self.flair = flair
        self.image_size = max(whole.image_size, flair.image_size)
        self.context_slices = max(whole.context_slices, flair.context_slices)
        self.min_component_fraction = whole.min_component_fraction  # and flair's, says the recipe

    def forward(self, volume: Tensor) -> Tensor:
        """As `VolumeSegmenter.forward`."""
        others = torch.cat([volume[..., :FLAIR], volume[..., FLAIR + 1 :]], dim=3)
        difference = (others.float() - volume[..., FLAIR : FLAIR + 1].float()).abs()
        lacking = difference.amax((0, 1, 2)).amin() == 0
        return torch.where(lacking, self.flair(volume), self.whole(volume))


def build_segmenter(
    settings: Network, place: str = "train.network", sides: Iterable[int] = ()
) -> VolumeSegmenter:
    """Makes the network that the settings describe.

    Args:
        settings: Of the network.
        place: Of the settings, for messages.
        sides: Of slices that it will see beside those of its `image_size`, in pixels.

    Raises:
        UserError: If the libraries lack the encoder or ImageNet weights for it, it does not go
            together with the architecture or the other settings, the output has another size than
            the input, or the ImageNet weights cannot be downloaded.
    """
    check_encoder(settings, place)
    check_weights(settings, place)
    sequences = 1 if settings.sequences == "flair" else len(CHANNELS)
    channels = sequences * (2 * settings.context_slices + 1)
    network = _build_network(settings, channels, place)
    for side in (settings.image_size, *sides):
        _check_size(network, settings, channels, side, place)
    return VolumeSegmenter(network if sequences > 1 else FlairOnly(network), settings)


def _build_network(settings: Network, channels: int, place: str) -> nn.Module:
    if settings.architecture == "plain_unet":
        return PlainUnet(channels, stages=settings.encoder_depth)
    widths = _decoder_widths(settings)
    try:
        network: nn.Module = smp.create_model(
            settings.architecture,
            encoder_name=settings.encoder,
            encoder_depth=settings.encoder_depth,
            encoder_weights=None
            if settings.encoder_weights == "none"
            else settings.encoder_weights,
            in_channels=channels,
            classes=1,
            **({"decoder_channels": widths} if widths else {}),
        )
    except OSError as error:  # hub errors and lost connections are OSErrors
        raise UserError(
            f"ImageNet weights of {settings.encoder} cannot be downloaded "
            f"({type(error).__name__}); go on without by {place}.encoder_weights=none"
        ) from error
    except _REFUSALS as error:
        raise UserError(
            f"{place}: no network {settings.architecture} with encoder {settings.encoder}: {error}"
        ) from error
    return network


def _decoder_widths(settings: Network) -> Sequence[int] | None:
    """As many as the encoder has stages; `None` where the decoder has not one a stage.

    The library's own widths are for five stages, and it refuses them for fewer.
    """
    if settings.decoder_channels:
        return settings.decoder_channels
    options = inspect.signature(smp.MODEL_ARCHITECTURES_MAPPING[settings.architecture]).parameters
    widths = options["decoder_channels"].default if "decoder_channels" in options else None
    return widths[: settings.encoder_depth] if isinstance(widths, tuple) else None


def _check_size(
    network: nn.Module, settings: Network, channels: int, side: int, place: str
) -> None:
    # smp's FPN, for one, gives images of four times the size with three stages
    try:
        with torch.inference_mode():
            given = network.eval()(torch.zeros(1, channels, side, side)).shape[2:]
    except _REFUSALS as error:
        raise UserError(
            f"{place}: {settings.architecture} with encoder {settings.encoder} cannot take slices "
            f"of {side} x {side} ({str(error).partition(chr(10))[0]}); try another image_size or "
            "encoder_depth"
        ) from error
    network.train()
    if tuple(given) != (side, side):
        raise UserError(
            f"{settings.architecture} with {place}.encoder_depth={settings.encoder_depth} "
            f"answers slices of {side} x {side} with {given[0]} x {given[1]}; try another depth"
        )
