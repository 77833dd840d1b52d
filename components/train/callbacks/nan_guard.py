"""Stops a training run whose loss is NaN or infinite."""

from collections.abc import Callable
from dataclasses import dataclass

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from components.shared.errors import UserError
from components.train.data.slices import SliceTensors
from components.train.recipe import Recipe

_BATCHES_BETWEEN_CHECKS = 50


@dataclass(frozen=True)
class _Batch:
    step: int
    learning_rate: str
    slices: Tensor  # their indices, and those of their CarveMix donors
    loss: Tensor


class NanGuard(Callback):
    """Checks the loss every few batches, before a validation and before a state is stored.

    A check waits until the device has done all steps so far, and for the other processes. A GPU
    works ahead of Python, so it is not checked at each step; one process on a CPU loses nothing
    by that. Unchecked batches are remembered, so that the first bad step can be named.

    Args:
        volume_of: Function from a slice's index to the name of its volume.
        advice: Possible remedies, for the message.
    """

    def __init__(self, volume_of: Callable[[int], str], advice: str) -> None:
        self._volume_of = volume_of
        self._advice = advice
        self._step, self._learning_rate = 0, ""
        self._unchecked: list[_Batch] = []

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: object) -> None:
        """Remembers the learning rates of the step, before the schedule changes them."""
        rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
        ends = sorted({min(rates), max(rates)})
        self._learning_rate = " to ".join(f"{rate:.3g}" for rate in ends)
        self._step = trainer.global_step + 1

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: SliceTensors,
        *_: object,
    ) -> None:
        """Remembers the loss of a batch, and checks those so far if it is time to.

        Raises:
            UserError: If a loss since the last check was NaN or infinite.
        """
        assert isinstance(outputs, dict)
        self._unchecked.append(_Batch(self._step, self._learning_rate, batch[2], outputs["loss"]))
        free = pl_module.device.type == "cpu" and trainer.world_size == 1
        if free or len(self._unchecked) >= _BATCHES_BETWEEN_CHECKS or trainer.is_last_batch:
            self._check(trainer)

    def on_save_checkpoint(self, trainer: lightning.Trainer, *_: object) -> None:
        """Keeps NaN weights out of the store.

        Raises:
            UserError: If a loss since the last check was NaN or infinite.
        """
        if self._unchecked:
            self._check(trainer)

    def _check(self, trainer: lightning.Trainer) -> None:
        unchecked, self._unchecked = self._unchecked, []
        finite = torch.isfinite(torch.stack([batch.loss for batch in unchecked])).int()
        everywhere = trainer.strategy.reduce(finite, reduce_op="min")
        assert isinstance(everywhere, Tensor)
        if everywhere.all():
            return
        first = unchecked[int(everywhere.argmin())]
        slices = trainer.strategy.all_gather(first.slices).flatten().tolist()
        raise UserError(
            f"the loss became NaN or infinite in step {first.step} (epoch "
            f"{trainer.current_epoch + 1}, learning rate {first.learning_rate}, volumes "
            f"{', '.join(sorted({*map(self._volume_of, slices)}))}); {self._advice}"
        )


def advice_against(recipe: Recipe) -> str:
    """Suggests changes of a recipe against NaN losses."""
    advice = "lower train.optimizer.learning_rate"
    if recipe.optimizer.find_learning_rate:
        advice += (
            f" ({recipe.optimizer.learning_rate:.2g} was found), with find_learning_rate=false"
        )
    if recipe.compute.precision != "32-true":
        advice += ", or use train.compute.precision=32-true"
    return advice
