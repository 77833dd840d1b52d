"""Optimizers by name, of torch, timm or the user's package."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from timm.optim import muon
from timm.optim._optim_factory import get_optimizer_class, list_optimizers
from timm.optim.muon import Muon
from torch import nn
from torch.optim import Optimizer

from components.shared.errors import UserError
from components.train.optimization.library import classes_of, find_class, make
from components.train.precision import has_fast_bf16
from components.train.recipe import OptimizerSettings

BETAS = (0.9, 0.999)  # of AdamW, where the schedule does not move them


def build_optimizer(
    settings: OptimizerSettings,
    rest: Sequence[nn.Parameter],
    encoder: Sequence[nn.Parameter],
    place: str = "train.optimizer",
) -> Optimizer:
    """Builds the optimizer that the settings name.

    Muon is for matrices: the weights of a convolution are one, with a row for each output
    channel. It computes in float32 on CPUs that are slower in bfloat16. Its steps are as large as
    AdamW's would be (arXiv:2502.16982), so that one learning rate suits both. Parameters that are
    no matrix of several rows and columns (biases, norms, depthwise convolutions, the output) use
    AdamW with Nesterov momentum and timm's second beta, 0.95.

    Args:
        settings: Settings; a scheduler sets the learning rates later.
        rest: Parameters outside the encoder.
        encoder: Parameters of the encoder.
        place: Section of the settings in a message.

    Returns:
        An optimizer with two groups: the other parameters, then the encoder's.

    Raises:
        UserError: If the method is unknown, its options are wrong or it fails on a small network.
    """
    shown = f"{place}.method={settings.method.name}"
    on_cpu = all(weight.is_cpu for weight in rest)
    factory = _factory(settings, f"{place}.method", on_cpu=on_cpu)
    build = functools.partial(
        make,
        factory,
        fixed=_fixed(factory, settings, place, shown),
        options={**_defaults(settings), **settings.method.options},
        place=shown,
    )
    if settings.method.name not in _OURS:
        _try(build, shown)
    optimizer = build([{"params": rest}, {"params": encoder}])
    unscales_itself = getattr(optimizer, "_step_supports_amp_scaling", False)
    if settings.gradient_clip is not None and unscales_itself:
        raise UserError(f"{shown}: fused=true cannot be combined with {place}.gradient_clip")
    return optimizer


class Float32Muon(Muon):
    """timm's Muon with Newton-Schulz in float32.

    timm 1.0 always calls its function with bfloat16, which has a `dtype` for other callers.
    """

    def step(self, closure: Any = None) -> Any:  # noqa: ANN401  # as of torch
        """Does one step."""
        newton_schulz = muon.zeropower_via_newtonschulz
        muon.zeropower_via_newtonschulz = functools.partial(newton_schulz, dtype=torch.float32)
        try:
            return super().step(closure)  # type: ignore[no-untyped-call]
        finally:
            muon.zeropower_via_newtonschulz = newton_schulz


_OURS: Mapping[str, type[Optimizer]] = {"adamw": torch.optim.AdamW, "muon": Muon}


def _factory(settings: OptimizerSettings, place: str, *, on_cpu: bool) -> Callable[..., Optimizer]:
    name = settings.method.name
    known = {**_OURS, **classes_of(torch.optim, Optimizer)}
    timms = {str(each): Optimizer for each in list_optimizers()}
    sources = f"{', '.join(_OURS)}, the classes of torch.optim, the names of timm's optimizers"
    found = find_class(name, Optimizer, {**timms, **known}, sources, place)
    if found is Muon and on_cpu and not has_fast_bf16():
        return Float32Muon
    if name in known or ":" in name:
        return found
    try:
        return get_optimizer_class(name)
    except Exception as error:  # some need CUDA or packages and say so by assertions
        raise UserError(f"{place}={name} is not available: {error}") from error


def _defaults(settings: OptimizerSettings) -> dict[str, object]:
    if settings.method.name == "adamw":
        # Lightning 2.6 refuses to clip gradients in mixed precision where the optimizer
        # unscales them itself, as a fused one does
        return {"betas": BETAS, "fused": settings.gradient_clip is None}
    return {"nesterov": True} if settings.method.name == "muon" else {}


def _fixed(
    factory: Callable[..., Optimizer], settings: OptimizerSettings, place: str, shown: str
) -> dict[str, float]:
    accepted = inspect.signature(factory).parameters
    values = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if "weight_decay" not in accepted and settings.weight_decay:
        raise UserError(f"{shown} has no weight decay; set {place}.weight_decay=0")
    return {name: value for name, value in values.items() if name in accepted}


def _try(build: Callable[..., Optimizer], shown: str) -> None:
    """Does a step with a small network."""
    weights = [nn.Parameter(torch.ones(4, 2, 3, 3)), nn.Parameter(torch.ones(4))]
    optimizer = build([{"params": [weight]} for weight in weights])
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    try:
        optimizer.step()
    except Exception as error:  # of any kind: it is not our code
        raise UserError(f"{shown} fails on a small network: {error}") from error
