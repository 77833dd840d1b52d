"""A training whose loss is no number any more is stopped."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from components.shared.errors import UserError
from components.train.data.slices import SliceTensors
from components.train.recipe import Recipe

_BATCHES_BETWEEN_LOOKS = 50


@dataclass(frozen=True)
class _Batch:
    step: int
    learning_rate: str
    slices: Tensor  # their indices, and those of what is pasted into them
    loss: Tensor


class StopAtNonFiniteLoss(Callback):
    """Looks at the loss every so many batches, before a validation and before a state is kept.

    To look is to wait until the device has done all steps so far, and for the other processes.
    A GPU works ahead of Python: that is not done at each step. On the CPU, alone, it costs
    nothing. What is needed to name the first bad step is remembered in between.

    Args:
        volume_of: Gives the name of the volume that a slice is of, by the slice's index.
        advice: What may help, for the message.
    """

    def __init__(self, volume_of: Callable[[int], str], advice: str) -> None:
        self._volume_of = volume_of
        self._advice = advice
        self._step, self._learning_rate = 0, ""
        self._unseen: list[_Batch] = []

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: SliceTensors,
        batch_idx: int,
    ) -> None:
        """Takes the learning rates of the step, before the schedule goes on."""
        del pl_module, batch, batch_idx
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
        batch_idx: int,
    ) -> None:
        """Takes the batch's loss in.

        Raises:
            UserError: If a loss since the last look was infinite or no number.
        """
        del batch_idx
        assert isinstance(outputs, dict)
        self._unseen.append(_Batch(self._step, self._learning_rate, batch[2], outputs["loss"]))
        at_once = pl_module.device.type == "cpu" and trainer.world_size == 1
        if at_once or len(self._unseen) >= _BATCHES_BETWEEN_LOOKS or trainer.is_last_batch:
            self._look(trainer)

    def on_save_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Keeps weights that are no numbers out of the store.

        Raises:
            UserError: As after a batch.
        """
        del pl_module, checkpoint
        if self._unseen:
            self._look(trainer)

    def _look(self, trainer: lightning.Trainer) -> None:
        unseen, self._unseen = self._unseen, []
        finite = torch.isfinite(torch.stack([batch.loss for batch in unseen])).int()
        everywhere = trainer.strategy.reduce(finite, reduce_op="min")
        assert isinstance(everywhere, Tensor)
        if everywhere.all():
            return
        first = unseen[int(everywhere.argmin())]
        slices = trainer.strategy.all_gather(first.slices).flatten().tolist()
        raise UserError(
            f"the loss became infinite or no number in step {first.step} (epoch "
            f"{trainer.current_epoch + 1}, learning rate {first.learning_rate}, volumes "
            f"{', '.join(sorted({*map(self._volume_of, slices)}))}); {self._advice}"
        )


def advice_against(recipe: Recipe) -> str:
    """What may help against losses that are no numbers, of what the recipe does not do yet."""
    advice = "lower train.optimizer.learning_rate"
    if recipe.optimizer.find_learning_rate:
        advice += (
            f" ({recipe.optimizer.learning_rate:.2g} was found), with find_learning_rate=false"
        )
    if recipe.compute.precision != "32-true":
        advice += ", or use train.compute.precision=32-true"
    return advice
