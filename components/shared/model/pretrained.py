"""Initial weights of a network, matched to its own tensors."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from components.shared.dataset.channels import LGG_TARGETS
from components.shared.dataset.volumes import size_text
from components.shared.errors import UserError
from components.shared.model.network import VolumeSegmenter

logger = logging.getLogger(__name__)

_LEAST = 0.95  # of an encoder's tensors; fewer are of another network
_SHOWN = 20  # names in a line of the log
_EXAMPLES = 3  # in a message
_SHAPING = ("architecture", "encoder", "encoder_depth", "context_slices", "sequences")
_COUNTER = "num_batches_tracked"  # older files lack it, and inference does not use it

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Match:
    """Names of the file for names of the network.

    Attributes:
        names: Name in the file for each name in the network that has a match.
        by: Rule of the match, for the log.
    """

    names: Mapping[str, str]
    by: str


def load_encoder(encoder: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Loads pretrained weights into an encoder.

    Names match after a prefix such as `module.encoder.` is removed. If too few match, tensors
    match in the order of definition, as far as all their shapes agree: implementations of one
    network differ in names, not in order. The first convolution is adapted to the encoder's
    number of channels.

    Args:
        encoder: Encoder, which is changed in place.
        weights: Tensors of a file, in its order.
        name: Name of the weights in messages.

    Raises:
        UserError: If less than 95 % of the encoder's tensors match, or some are NaN or infinite.
    """
    own = encoder.state_dict()
    wanted = _without_counters(own)
    first = next((key for key, tensor in own.items() if tensor.dim() == 4), "")
    match = find_match(wanted, _without_counters(weights), first)
    if len(match.names) < _LEAST * len(wanted):
        raise _too_few(wanted, weights, match, name)
    for key, source in match.names.items():
        tensor = weights[source]
        own[key].copy_(adapt_channels(tensor, own[key].shape[1]) if key == first else tensor)
    _require_finite(own, name)
    _log(wanted, weights, match, name)


def load_network(
    segmenter: VolumeSegmenter, weights: Mapping[str, Tensor], config: str, name: str
) -> None:
    """Loads the weights of an earlier model of the same architecture (a warm start).

    Args:
        segmenter: Segmenter, which is changed in place.
        weights: Tensors of the model's `model.safetensors`.
        config: Its `config.json`; empty if unknown.
        name: Name of the weights in messages.

    Raises:
        UserError: If its architecture or channels differ, or some weights are NaN or infinite.
    """
    half = "flair" if segmenter.settings.sequences == "reference" else "whole"
    is_pair = any(key.startswith(f"{half}.") for key in weights)
    inner = f"{half}." if is_pair else ""
    own = segmenter.state_dict()
    found = {key: weights.get(f"{inner}{key}") for key in own}
    differing = [*_other_settings(segmenter, config, is_pair), *_other_shapes(own, found)]
    if differing:
        raise UserError(
            f"the network cannot start from {name}: {'; '.join(differing[:_EXAMPLES])}; use a "
            "model of the same architecture, channels and number of targets, or no initial_weights"
        )
    for key, tensor in found.items():
        assert tensor is not None
        own[key].copy_(tensor)
    _require_finite(own, name)
    logger.info("the network starts from %s: all %d tensors", name, len(own))


def _other_settings(segmenter: VolumeSegmenter, config: str, is_pair: bool) -> Iterator[str]:
    if not config:
        return
    stored, channels = json.loads(config), list(segmenter.channels.names)
    if stored.get("members", 1) > 1:
        yield f"it is an ensemble of {stored['members']} networks"
    if stored["channels"]["names"] != channels:
        others = ", ".join(stored["channels"]["names"])
        yield f"channels are {others} there and {', '.join(channels)} here"
    targets = [target.name for target in segmenter.targets]
    found = [one["name"] for one in stored.get("targets", [])] or [LGG_TARGETS[0].name]
    if len(found) != len(targets):
        yield f"targets are {', '.join(found)} there and {', '.join(targets)} here"
    is_second = is_pair and segmenter.settings.sequences == "reference"
    there = stored["flair_network" if is_second else "network"]
    for setting in _SHAPING:
        here = getattr(segmenter.settings, setting)
        if there.get(setting, here) != here:
            yield f"{setting} is {there[setting]} there and {here} here"


def _other_shapes(own: Mapping[str, Tensor], found: Mapping[str, Tensor | None]) -> Iterator[str]:
    for key, tensor in own.items():
        there = found[key]
        if there is None or there.shape != tensor.shape:
            shown = "missing" if there is None else size_text(there.shape)
            yield f"{key} is {shown} there and {size_text(tensor.shape)} here"


def find_match(
    wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor], first: str = ""
) -> Match:
    """Finds the tensors of a file that fit those of a network, by name or by order.

    Args:
        wanted: Tensors of the network.
        weights: Tensors of the file.
        first: Name of the network's first convolution, whose input channels may differ.
    """
    prefix = _common_prefix(wanted)
    shapes = {key.removeprefix(prefix): _shape(t, key == first) for key, t in wanted.items()}
    own = {key.removeprefix(prefix): key for key in wanted}
    found = {
        before: {
            own[short]: before + short
            for short, shape in shapes.items()
            if before + short in weights
            and _shape(weights[before + short], own[short] == first) == shape
        }
        for before in _prefixes(weights)
    }
    before, best = max(found.items(), key=lambda item: len(item[1]))
    ordered = _in_order(wanted, weights, first) if len(best) < _LEAST * len(wanted) else None
    if ordered:
        return Match(ordered, "in the order of definition")
    return Match(best, f"by name, after the prefix {before!r}" if before else "by name")


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Adapts a convolution's weight to another number of input channels.

    Input channels are repeated, or added up, in turn. The answer to an image whose channels are
    all equal stays the same.

    Args:
        weight: float tensor, outputs x channels x height x width.
        channels: Number of input channels.
    """
    given = weight.shape[1]
    sources = torch.arange(max(given, channels)) % given
    uses = torch.bincount(sources, minlength=given)
    targets = torch.arange(max(given, channels)) % channels
    adapted = torch.zeros(len(weight), channels, *weight.shape[2:], dtype=weight.dtype)
    shares = (weight / uses.view(1, -1, 1, 1).to(weight.dtype))[:, sources]
    return adapted.index_add_(1, targets, shares)


def _in_order(
    wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor], first: str
) -> dict[str, str] | None:
    """Pairs the tensors one by one; `None` unless all agree. A file's head may follow them."""
    if len(weights) < len(wanted):
        return None
    pairs = dict(zip(wanted, weights, strict=False))
    for key, source in pairs.items():
        is_first = key == first
        if _shape(wanted[key], is_first) != _shape(weights[source], is_first):
            return None
        if key.rpartition(".")[2] != source.rpartition(".")[2]:  # e.g. weight and bias
            return None
    return pairs


def _shape(tensor: Tensor, any_channels: bool) -> Shape:
    shape = tuple(tensor.shape)
    return (shape[0], 0, *shape[2:]) if any_channels and len(shape) == 4 else shape


def _without_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in tensors.items() if not key.endswith(_COUNTER)}


def _common_prefix(names: Iterable[str]) -> str:
    heads = {name.partition(".")[0] for name in names if "." in name}
    alone = any("." not in name for name in names)
    return f"{heads.pop()}." if len(heads) == 1 and not alone else ""


def _prefixes(names: Iterable[str]) -> Sequence[str]:
    """All that names of a file begin with, up to a dot, the shortest first."""
    found = {""}
    for name in names:
        parts = name.split(".")[:-1]
        found.update("".join(f"{part}." for part in parts[:count]) for count in range(1, 5))
    return sorted(found, key=len)


def _require_finite(tensors: Mapping[str, Tensor], name: str) -> None:
    bad = [key for key, tensor in tensors.items() if not tensor.isfinite().all()]
    if bad:
        raise UserError(f"weights {name} hold NaN or infinity, e.g. in {bad[0]}")


def _too_few(
    wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor], match: Match, name: str
) -> UserError:
    missing = [key for key in wanted if key not in match.names]
    unused = [key for key in weights if key not in set(match.names.values())]
    return UserError(
        f"weights {name} fit {len(match.names)} of the encoder's {len(wanted)} tensors, at least "
        f"{_LEAST:.0%} must; it has e.g. {_examples(missing, wanted)}, the file "
        f"{_examples(unused, weights)}: use the weights of this encoder, or another encoder"
    )


def _examples(names: Sequence[str], tensors: Mapping[str, Tensor]) -> str:
    shown = [f"{name} ({size_text(tuple(tensors[name].shape))})" for name in names[:_EXAMPLES]]
    return ", ".join(shown) or "no others"


def _log(
    wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor], match: Match, name: str
) -> None:
    logger.info(
        "weights %s: %d of the encoder's %d tensors match, %s",
        name,
        len(match.names),
        len(wanted),
        match.by,
    )
    used = set(match.names.values())
    for what, names in (
        ("not in the file, random", [key for key in wanted if key not in match.names]),
        ("in the file, not used", [key for key in _without_counters(weights) if key not in used]),
    ):
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            logger.info("%s: %s%s", what, ", ".join(names[:_SHOWN]), more)
