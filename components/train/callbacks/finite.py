"""A training whose loss is no number any more is stopped."""

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from components.shared.errors import UserError

_STEPS_BETWEEN_LOOKS = 50


class StopAtNonFiniteLoss(Callback):
    """Looks at the loss every so many steps and before every validation.

    To look is to wait until the device has done all steps so far: on a GPU, which works ahead
    of Python, that is not done at each step. On the CPU it costs nothing.
    """

    def __init__(self) -> None:
        self._finite: Tensor | None = None
        self._looked = 0

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """A resumed training starts at a later step."""
        del pl_module
        self._looked = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Takes the step's loss in.

        Raises:
            UserError: If a loss since the last look was infinite or no number.
        """
        del batch, batch_idx
        assert isinstance(outputs, dict)
        finite = torch.isfinite(outputs["loss"])
        self._finite = finite if self._finite is None else self._finite & finite
        steps = trainer.global_step - self._looked
        if pl_module.device.type == "cpu" or steps >= _STEPS_BETWEEN_LOOKS or trainer.is_last_batch:
            self._look(trainer)

    def _look(self, trainer: lightning.Trainer) -> None:
        first, last = self._looked + 1, trainer.global_step
        if not self._finite:
            where = f"step {last}" if first >= last else f"steps {first} to {last}"
            raise UserError(
                f"the loss became infinite or no number in {where} (epoch "
                f"{trainer.current_epoch + 1}); lower train.optimiser.learning_rate, or use "
                "train.compute.precision=32-true"
            )
        self._finite, self._looked = None, last
