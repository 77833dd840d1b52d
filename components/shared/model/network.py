"""Segmenter: normalization, resizing and network in one exportable module."""

import copy
import inspect
from collections.abc import Iterable, Sequence
from typing import cast

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from components.shared.dataset.channels import LGG_CHANNELS, LGG_TARGETS, Channels, Target
from components.shared.dataset.volumes import size_text
from components.shared.errors import UserError
from components.shared.model.library import check_encoder, check_weights
from components.shared.model.plain_unet import PlainUnet
from components.shared.model.preparation import (
    NORMALIZATIONS,
    cut,
    gray_levels,
    head_box,
    inverse,
    sample,
)
from components.shared.model.settings import Network
from components.shared.model.user_networks import build_user_network

# errors by which smp, timm and torch refuse settings, when a network is built or called
_REFUSALS = (LookupError, TypeError, ValueError, RuntimeError, AssertionError)
# modules of each network; a process builds many of one kind
_unused: dict[tuple[Network, Channels], tuple[str, ...]] = {}


class VolumeSegmenter(nn.Module):
    """Maps a whole volume to the probabilities of its targets.

    Training uses the parts (`levels`, `prepare`, `with_neighbours`, `network`, `answer`,
    `restore`), `forward` chains them; so what is served is what was trained.

    Attributes:
        robust: Levels of the preprocessing, see `head_box`.
        channels: Channels and type of the volumes.
        targets: What the network finds, one output channel for each.
    """

    def __init__(
        self,
        network: nn.Module,
        settings: Network,
        channels: Channels = LGG_CHANNELS,
        targets: tuple[Target, ...] = LGG_TARGETS,
    ) -> None:
        super().__init__()
        self.robust = True
        self.network = network
        self.settings = settings
        self.channels = channels
        self.targets = targets
        self.image_size = settings.image_size
        self.context_slices = settings.context_slices
        self.min_component_fraction = settings.min_component_fraction
        self._normalize = NORMALIZATIONS[settings.normalization]
        self._crop = settings.crop
        self._reference_only = settings.sequences == "reference"
        self._mirrored_too = settings.test_time_flip

    def forward(self, volume: Tensor) -> Tensor:
        """Predicts one volume.

        Args:
            volume: Of the type of `channels`, slices x height x width x channels.

        Returns:
            Probability, float32: slices x height x width of one target; targets x slices x height
            x width of several.
        """
        levels = self.levels(volume)
        prepared = with_neighbours(self.prepare(levels), self.context_slices)
        logits = self.answer(prepared)
        placed = self.restore(logits, self.box(levels), volume.shape[1], volume.shape[2])
        return placed[:, 0] if len(self.targets) == 1 else placed.transpose(0, 1)

    def levels(self, volume: Tensor) -> Tensor:
        """Returns the gray levels of a volume, from 0 to 255; uint8 channels have them already."""
        return volume if self.channels.dtype == "uint8" else gray_levels(volume)

    def box(self, levels: Tensor) -> Tensor:
        """Returns the box that slices are cut to, in the form of `head_box`.

        Args:
            levels: Volume as from `levels`.
        """
        if self._crop == "head":
            return head_box(self._seen(levels), robust=self.robust)
        return torch.tensor([0.0, 0.0, 1.0, 1.0], device=levels.device)

    def prepare(self, levels: Tensor) -> Tensor:
        """Normalizes a volume and cuts its slices to the head.

        Args:
            levels: Volume as from `levels`.

        Returns:
            float32, slices x channels x image_size x image_size, in standard deviations.
        """
        normal = self._normalize(self._seen(levels), robust=self.robust)
        return cut(normal, self.box(levels), self.image_size)

    def _seen(self, levels: Tensor) -> Tensor:
        """For networks of the reference alone, replaces all channels by it, for box and statistics.

        Such a network trains on whole scans and predicts scans that lack a sequence. There, the
        missing sequence is a copy of the reference.
        """
        if not self._reference_only:
            return levels
        return levels[..., self.channels.reference_index, None].expand_as(levels)

    def answer(self, stacked: Tensor) -> Tensor:
        """Returns the network's logits at inference.

        Args:
            stacked: Slices with their neighbors, as from `with_neighbours`.

        Returns:
            Logits, slices x targets x image_size x image_size. With `test_time_flip`, the mean
            over the slices and their mirror images.
        """
        logits: Tensor = self.network(stacked)
        if self._mirrored_too:
            logits = (logits + self.network(stacked.flip(3)).flip(3)) / 2
        return logits

    def restore(self, logits: Tensor, box: Tensor, height: int, width: int) -> Tensor:
        """Maps logits back from the head's box to the whole slice.

        Args:
            logits: slices x targets x image_size x image_size, as from `answer`.
            box: Box of the volume, as from `box`.
            height: Height of the volume in pixels.
            width: Width of the volume in pixels.

        Returns:
            Probability, float32, slices x targets x height x width; 0 outside the box.
        """
        probability = torch.sigmoid(logits.float())
        return sample(probability, inverse(box), height, width, padding="zeros")


def with_neighbours(prepared: Tensor, context_slices: int) -> Tensor:
    """Stacks each slice with its neighbors as channels; the ends repeat the outermost slice.

    Args:
        prepared: slices x channels x side x side.
        context_slices: Neighbors on each side.

    Returns:
        slices x channels (2 context_slices + 1) x side x side, in the order of the slices.
    """
    shifted = [prepared]
    before = after = prepared
    for _ in range(context_slices):
        before = torch.cat([before[:1], before[:-1]])
        after = torch.cat([after[1:], after[-1:]])
        shifted = [before, *shifted, after]
    return torch.cat(shifted, dim=1)


def freeze_unused(segmenter: VolumeSegmenter) -> None:
    """Freezes parameters that the output does not depend on.

    Processes that train together would wait for their gradients.
    """
    tried, _ = _try(segmenter.network, segmenter.settings, segmenter.channels, "cpu")
    used = {name: weight.grad is not None for name, weight in tried.named_parameters()}
    for name, weight in segmenter.network.named_parameters():
        weight.requires_grad_(used[name])


def _drop_unused(network: nn.Module, settings: Network, channels: Channels) -> None:
    """Replaces modules that are not used, e.g. the encoder's stages after its depth."""
    if (settings, channels) not in _unused:
        _unused[settings, channels] = _find_unused(network, settings, channels)
    for name in _unused[settings, channels]:
        network.set_submodule(name, nn.Identity())


def _find_unused(network: nn.Module, settings: Network, channels: Channels) -> tuple[str, ...]:
    try:
        tried, called = _try(network, settings, channels, "meta")
    except (*_REFUSALS, NotImplementedError):
        return ()
    found: tuple[str, ...] = ()
    for name, module in list(tried.named_modules())[1:]:
        weights = list(module.parameters())
        unused = called.isdisjoint(module.modules()) and all(w.grad is None for w in weights)
        if weights and unused and not name.startswith(tuple(f"{each}." for each in found)):
            found = (*found, name)
    return found


def _try(
    network: nn.Module, settings: Network, channels: Channels, device: str
) -> tuple[nn.Module, set[nn.Module]]:
    """Returns a copy with gradients, and the modules that were called; `meta` computes nothing."""
    weights = {id(weight): nn.Parameter(weight.to(device)) for weight in network.parameters()}
    buffers = {id(buffer): buffer.to(device) for buffer in network.buffers()}
    tried = copy.deepcopy(network, {**weights, **buffers}).eval()
    called: set[nn.Module] = set()
    for module in tried.modules():
        module.register_forward_hook(lambda module, *_: called.add(module))
    stacked, side = channels.count * settings.slices_seen, settings.image_size
    tried(torch.zeros(1, stacked, side, side, device=device)).sum().backward()
    return tried, called


class ReferenceOnly(nn.Module):
    """Passes only the reference's channels of a stack to a network."""

    def __init__(self, network: nn.Module, channels: Channels) -> None:
        super().__init__()
        self.network = network
        self._passed = slice(channels.reference_index, None, channels.count)

    @property
    def encoder(self) -> nn.Module:
        """Encoder of the network."""
        return cast(nn.Module, self.network.encoder)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits; images as from `with_neighbours`."""
        return cast(Tensor, self.network(images[:, self._passed]))


class PairedSegmenter(nn.Module):
    """One segmenter for whole scans and one for scans that lack a sequence.

    A sequence that was not acquired is a copy of the reference.
    """

    def __init__(self, whole: VolumeSegmenter, flair: VolumeSegmenter) -> None:
        super().__init__()
        self.whole = whole
        self.flair = flair  # a stored name, whatever the reference is
        self.channels = whole.channels
        self.targets = whole.targets
        self.image_size = max(whole.image_size, flair.image_size)
        self.context_slices = max(whole.context_slices, flair.context_slices)
        self.min_component_fraction = whole.min_component_fraction  # the recipe has one for both

    def forward(self, volume: Tensor) -> Tensor:
        """Predicts one volume, see `VolumeSegmenter.forward`."""
        place = self.channels.reference_index
        others = torch.cat([volume[..., :place], volume[..., place + 1 :]], dim=3)
        difference = (others.float() - volume[..., place : place + 1].float()).abs()
        lacking = difference.amax((0, 1, 2)).amin() == 0
        if torch.compiler.is_exporting():  # an exported program has no branches
            return torch.where(lacking, self.flair(volume), self.whole(volume))
        return cast(Tensor, self.flair(volume) if lacking else self.whole(volume))


class EnsembleSegmenter(nn.Module):
    """Mean of the probabilities of several models of one recipe."""

    def __init__(self, members: Sequence[VolumeSegmenter | PairedSegmenter]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        first = members[0]
        self.channels = first.channels
        self.targets = first.targets
        self.image_size = first.image_size
        self.context_slices = first.context_slices
        self.min_component_fraction = first.min_component_fraction

    def forward(self, volume: Tensor) -> Tensor:
        """Predicts one volume, see `VolumeSegmenter.forward`."""
        total: Tensor = sum(member(volume) for member in self.members)
        return total / len(self.members)


def build_segmenter(
    settings: Network,
    place: str = "train.network",
    sides: Iterable[int] = (),
    *,
    is_tried: bool = True,
    channels: Channels = LGG_CHANNELS,
    targets: tuple[Target, ...] = LGG_TARGETS,
) -> VolumeSegmenter:
    """Builds the segmenter that the settings describe, with random weights.

    Args:
        settings: Settings of the network.
        place: Place of the settings, for messages.
        sides: Further sides of slices in pixels that the network must accept.
        is_tried: `True` to check the network by predicting a slice of each size.
        channels: Channels of the volumes.
        targets: What the network finds.

    Raises:
        UserError: If the libraries lack the encoder or its ImageNet weights, the settings do not
            go together, the output has another size than the input, or a network of the user's
            cannot be imported.
    """
    check_encoder(settings, place)
    check_weights(settings, place)
    reference_only = settings.sequences == "reference"
    in_channels = (1 if reference_only else channels.count) * settings.slices_seen
    network = _build_network(settings, in_channels, len(targets), place)
    wrapped = ReferenceOnly(network, channels) if reference_only else network
    if not settings.is_users:
        _drop_unused(wrapped, settings, channels)
    for side in (settings.image_size, *sides) if is_tried else ():
        _check_size(network, settings, (in_channels, len(targets)), side, place)
    return VolumeSegmenter(wrapped, settings, channels, targets)


def _build_network(settings: Network, channels: int, classes: int, place: str) -> nn.Module:
    try:
        if settings.is_users:
            return build_user_network(settings, channels, classes, place)
        if settings.architecture == "plain_unet":
            return PlainUnet(channels, settings.encoder_depth, classes)
        return _build_library_network(settings, channels, classes)
    except _REFUSALS as error:
        raise UserError(f"{place}: no network {_name(settings)}: {error}") from error


def _build_library_network(settings: Network, channels: int, classes: int) -> nn.Module:
    widths = _decoder_widths(settings)
    network: nn.Module = smp.create_model(
        settings.architecture,
        encoder_name=settings.encoder,
        encoder_depth=settings.encoder_depth,
        encoder_weights=None,
        in_channels=channels,
        classes=classes,
        **({"decoder_channels": widths} if widths else {}),
    )
    return network


def _name(settings: Network) -> str:
    encoder = f" with encoder {settings.encoder}" if settings.has_encoder else ""
    return f"{settings.architecture}{encoder}"


def _decoder_widths(settings: Network) -> Sequence[int] | None:
    """Returns a width for each stage; `None` for decoders that have no such widths.

    The library's own widths are for five stages, and it refuses them for fewer.
    """
    if settings.decoder_channels:
        return settings.decoder_channels
    options = inspect.signature(smp.MODEL_ARCHITECTURES_MAPPING[settings.architecture]).parameters
    widths = options["decoder_channels"].default if "decoder_channels" in options else None
    return widths[: settings.encoder_depth] if isinstance(widths, tuple) else None


def _check_size(
    network: nn.Module, settings: Network, depths: tuple[int, int], side: int, place: str
) -> None:
    channels, classes = depths
    expected = (1, classes, side, side)
    # smp's FPN, for example, returns four times the size with three stages
    try:
        with torch.inference_mode():
            shape = tuple(network.eval()(torch.zeros(1, channels, side, side)).shape)
    except _REFUSALS as error:
        raise UserError(
            f"{place}: {_name(settings)} cannot take slices of {side} x {side} "
            f"({str(error).partition(chr(10))[0]}); try another image_size or encoder_depth"
        ) from error
    network.train()
    if shape != expected:
        raise UserError(
            f"{place}: {_name(settings)} with encoder_depth={settings.encoder_depth} returns "
            f"{size_text(shape)} for a slice of {side} x {side}, not "
            f"{size_text(expected)}; try another encoder_depth"
        )
