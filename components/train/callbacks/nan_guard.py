"""Stops a training run whose loss is NaN or infinite."""

from collections.abc import Callable

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from components.shared.errors import UserError
from components.train.data.slices import SliceTensors
from components.train.recipe import Recipe

_BATCHES_BETWEEN_CHECKS = 50


class NanGuard(Callback):
    """Checks the loss every few batches, and before a validation.

    A check waits until the device has done all steps so far, and for the other processes. A GPU
    works ahead of Python, so it is not checked at each step; one process on a CPU loses nothing
    by that. Unchecked batches are remembered, so that the message names the first bad step, the
    volumes of its slices and the advice.
    """

    def __init__(self, volume_of: Callable[[int], str], advice: str) -> None:
        self._volume_of = volume_of
        self._advice = advice
        self._place = ""  # of the current step
        # place, loss, and indices of the slices and their CarveMix donors
        self._unchecked: list[tuple[str, Tensor, Tensor]] = []

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: object) -> None:
        """Remembers the step and its learning rates, before the schedule changes them."""
        rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
        shown = " to ".join(f"{rate:.3g}" for rate in sorted({min(rates), max(rates)}))
        epoch, step = trainer.current_epoch + 1, trainer.global_step + 1
        self._place = f"step {step} (epoch {epoch}, learning rate {shown}"

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        task: lightning.LightningModule,
        outputs: object,
        batch: SliceTensors,
        *_: object,
    ) -> None:
        """Remembers the loss of a batch, and checks those so far if it is time to.

        Raises:
            UserError: If a loss since the last check was NaN or infinite.
        """
        assert isinstance(outputs, dict)
        self._unchecked.append((self._place, outputs["loss"], batch[2]))
        free = task.device.type == "cpu" and trainer.world_size == 1
        if free or len(self._unchecked) >= _BATCHES_BETWEEN_CHECKS or trainer.is_last_batch:
            self._check(trainer)

    def _check(self, trainer: lightning.Trainer) -> None:
        unchecked, self._unchecked = self._unchecked, []
        finite = torch.isfinite(torch.stack([loss for _, loss, _ in unchecked])).int()
        everywhere = trainer.strategy.reduce(finite, reduce_op="min")
        assert isinstance(everywhere, Tensor)
        if everywhere.all():
            return
        place, _, indices = unchecked[int(everywhere.argmin())]
        slices = trainer.strategy.all_gather(indices).flatten().tolist()
        raise UserError(
            f"the loss became NaN or infinite in {place}, volumes "
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
