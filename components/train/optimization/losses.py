"""What is made small: losses of a batch that several processes may share."""

from collections.abc import Callable, Mapping

from torch import Tensor, stack
from torch.nn import functional

AddUp = Callable[[Tensor], Tensor]

_TINY = 1e-7


def loss_of(name: str, logits: Tensor, masks: Tensor, add_up: AddUp | None = None) -> Tensor:
    """The loss, see `components.train.recipe.OptimizerSettings`.

    Args:
        name: Of the recipe, e.g. `bce+dice`.
        logits: float32, slices x 1 x side x side.
        masks: Share of tumour in 0..1, of the same shape.
        add_up: Adds sums over the slices up with those of other processes.
    """
    parts = [_LOSSES[part](logits, masks, add_up) for part in name.split("+")]
    return stack(parts).sum()


def _cross_entropy(logits: Tensor, masks: Tensor, _: AddUp | None) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, masks)


def _soft_dice(logits: Tensor, masks: Tensor, add_up: AddUp | None) -> Tensor:
    """One minus the soft Dice of all slices together; 0 where there is no tumour.

    As `smp.losses.DiceLoss`, whose sums cannot be had apart: what both have in common is half of
    their sizes less the difference, so that a mask's soft edge can be met.
    """
    probability = logits.sigmoid()
    sums = stack([(probability - masks).abs().sum(), probability.sum(), masks.sum()])
    difference, predicted, true = add_up(sums) if add_up else sums
    loss: Tensor = difference / (predicted + true).clamp(min=_TINY) * (true > 0)
    return loss


_LOSSES: Mapping[str, Callable[[Tensor, Tensor, AddUp | None], Tensor]] = {
    "bce": _cross_entropy,
    "dice": _soft_dice,
}
