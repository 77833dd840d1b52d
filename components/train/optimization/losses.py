"""Segmentation losses over the global batch."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import segmentation_models_pytorch.losses as smp_losses
import torch
from torch import Tensor, nn, stack
from torch.nn import functional

from components.shared.errors import UserError
from components.train.optimization.library import classes_of, find_class, make
from components.train.recipe import Loss

AddUp = Callable[[Tensor], Tensor]
Term = Callable[[Tensor, Tensor, AddUp | None], Tensor]

_TINY = 1e-7


def cross_entropy(logits: Tensor, masks: Tensor, _: AddUp | None) -> Tensor:
    """Mean binary cross-entropy of the pixels."""
    return functional.binary_cross_entropy_with_logits(logits, masks)


def soft_dice(logits: Tensor, masks: Tensor, add_up: AddUp | None) -> Tensor:
    """One minus the soft Dice of all slices together; 0 where there is no tumour.

    Like `smp.losses.DiceLoss`, which does not return its sums. The intersection is half of both
    sizes minus the difference, so that the loss reaches 0 at a mask's soft edge too.
    """
    probability = logits.sigmoid()
    sums = stack([(probability - masks).abs().sum(), probability.sum(), masks.sum()])
    difference, predicted, true = add_up(sums) if add_up else sums
    loss: Tensor = difference / (predicted + true).clamp(min=_TINY) * (true > 0)
    return loss


LOSSES: Mapping[str, Term] = {"bce": cross_entropy, "dice": soft_dice}
"""Losses over the global batch; add one here."""


class BatchLoss(nn.Module):
    """The weighted sum of a recipe's terms.

    Raises:
        UserError: If a term is unknown, has wrong options or fails on a small batch.
    """

    def __init__(self, terms: Sequence[Loss], place: str = "train.optimizer.loss") -> None:
        super().__init__()
        self._terms = [_term(term, place) for term in terms]
        self._weights = [term.weight for term in terms]
        self._libraries = nn.ModuleList(t for t in self._terms if isinstance(t, nn.Module))

    def forward(self, logits: Tensor, masks: Tensor, add_up: AddUp | None = None) -> Tensor:
        """The loss of a batch, the mean over the targets.

        Args:
            logits: float32, slices x targets x side x side.
            masks: float32 fraction of each target in 0..1, of the same shape.
            add_up: Sums a tensor over the processes that share the batch; `None` if there is one.
        """
        targets = zip(torch.split(logits, 1, dim=1), torch.split(masks, 1, dim=1), strict=True)
        losses = [
            self._of_one(found.contiguous(), true.contiguous(), add_up) for found, true in targets
        ]
        return stack(losses).mean()

    def _of_one(self, logits: Tensor, masks: Tensor, add_up: AddUp | None) -> Tensor:
        parts = [
            # a library's loss is that of the part of the batch that this process has
            term(logits, masks) if isinstance(term, nn.Module) else term(logits, masks, add_up)
            for term in self._terms
        ]
        weighted = [weight * part for weight, part in zip(self._weights, parts, strict=True)]
        return stack(weighted).sum()


def _term(term: Loss, place: str) -> Term | nn.Module:
    shown = f"{place}={term.name}"
    if term.name in LOSSES:
        if term.options:
            raise UserError(f"{shown} has no options, not {', '.join(term.options)}")
        return LOSSES[term.name]
    library = _library_loss(term, place, shown)
    _try(library, shown)
    return library


def _library_loss(term: Loss, place: str, shown: str) -> nn.Module:
    known: dict[str, type[nn.Module]] = {**dict.fromkeys(LOSSES, nn.Module), **_known()}
    sources = f"{', '.join(LOSSES)}, the losses of segmentation_models_pytorch.losses and torch.nn"
    kind = find_class(term.name, nn.Module, known, sources, place)
    parameters = inspect.signature(kind).parameters
    mode = parameters.get("mode")
    is_smp = mode is not None and mode.default is mode.empty and "mode" not in term.options
    tensors = {key for key, one in parameters.items() if "Tensor" in str(one.annotation)}
    options = {
        key: torch.tensor(value) if key in tensors else value for key, value in term.options.items()
    }
    fixed = {"mode": "binary"} if is_smp else {}
    return make(kind, fixed=fixed, options=options, place=shown)


def _known() -> dict[str, type[nn.Module]]:
    ours = {name: kind for name, kind in vars(nn).items() if name.endswith("Loss")}
    return {**ours, **classes_of(smp_losses, nn.Module)}


def _try(loss: nn.Module, shown: str) -> None:
    """Computes the loss of two small slices, and its gradient."""
    logits = torch.linspace(-3, 3, 128).view(2, 1, 8, 8).requires_grad_()
    masks = torch.linspace(0, 1, 16).repeat(8).view(2, 1, 8, 8)
    expected = "a loss is called with (logits, masks), float32 tensors of slices x 1 x side x side"
    try:
        value: Any = loss(logits, masks)
    except Exception as error:  # of any kind: it is not our code
        raise UserError(f"{shown} fails on a small batch: {error}; {expected}") from error
    if not isinstance(value, Tensor) or value.ndim:
        form = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise UserError(f"{shown} returned {form}, not a scalar tensor; {expected}")
    if not value.requires_grad or not torch.autograd.grad(value, logits)[0].any():
        raise UserError(f"{shown} does not depend on the logits of one class; {expected}")
