"""How far a training has come, in log lines."""

import logging
import time

import lightning
from lightning.pytorch.callbacks import Callback

from components.train.callbacks.history import Epoch, History

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 15.0


class LogProgress(Callback):
    """A line for each validated epoch, and one now and then in long epochs.

    Args:
        history: Where the epochs are.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._started = self._told = time.monotonic()

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Says where a resumed training goes on."""
        del pl_module
        if trainer.global_step and trainer.is_global_zero:
            done, step = trainer.current_epoch, trainer.global_step
            logger.info("going on after epoch %d of %d (step %d)", done, trainer.max_epochs, step)

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Tells the progress of long epochs."""
        if time.monotonic() - self._told > _SECONDS_BETWEEN_LINES and trainer.is_global_zero:
            self._told = time.monotonic()
            step, steps = trainer.global_step, trainer.estimated_stepping_batches
            logger.info("step %d of %.0f", step, steps)

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Tells what was measured."""
        del pl_module
        epoch = self._history.ended(trainer)
        if epoch and trainer.is_global_zero:
            self._tell(epoch, trainer.max_epochs)

    def _tell(self, epoch: Epoch, epochs: int | None) -> None:
        self._told = time.monotonic()
        logger.info(
            "epoch %d of %d: train loss %.3f, validation loss %.3f, validation Dice %.3f (%.0f s)",
            epoch["epoch"],
            epochs,
            epoch["train_loss"],
            epoch["validation_loss"],
            epoch["validation_dice"],
            self._told - self._started,
        )
