"""How far a training has come, in log lines and for those who listen."""

import logging
import time
from collections.abc import Callable

import lightning
from lightning.pytorch.callbacks import Callback

from components.train.callbacks.history import Epoch, History
from components.train.data.slices import SliceTensors
from components.train.recipe import Recipe

logger = logging.getLogger(__name__)

EpochListener = Callable[[Epoch], None]

_SECONDS_BETWEEN_LINES = 15.0


class MeasurePace(Callback):
    """Measures how fast the steps of this attempt are; it stands before those who tell it.

    Args:
        recipe: Says which epochs learn from small slices, whose steps take less.

    Attributes:
        slices_per_second: Of all processes in the epoch at hand, with reading and augmentation,
            without validation; 0 before the first step.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.slices_per_second = 0.0
        self._recipe = recipe
        self._started = self._epoch_started = 0.0
        self._first = self._epoch_first = 0

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Begins to measure, in the middle of an epoch too."""
        self.on_train_epoch_start(trainer, pl_module)
        self._started, self._first = self._epoch_started, self._epoch_first

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Begins to measure an epoch."""
        del pl_module
        self._epoch_started, self._epoch_first = time.monotonic(), trainer.global_step

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: SliceTensors,
        batch_idx: int,
    ) -> None:
        """Takes a step in."""
        del pl_module, outputs, batch_idx
        slices = len(batch[2]) * trainer.accumulate_grad_batches * trainer.world_size
        steps = trainer.global_step - self._epoch_first
        self.slices_per_second = slices * steps / (time.monotonic() - self._epoch_started)

    def left_s(self, trainer: lightning.Trainer) -> float:
        """Seconds until the last step, at the pace since the start, with validations."""
        done = self._work(trainer, range(self._first, trainer.global_step))
        last = int(trainer.estimated_stepping_batches)
        left = self._work(trainer, range(trainer.global_step, last))
        return (time.monotonic() - self._started) * left / done if done else 0.0

    def _work(self, trainer: lightning.Trainer, steps: range) -> int:
        """In pixels of a step's slices, by which a network's time goes."""
        each = int(trainer.estimated_stepping_batches) // self._recipe.schedule.epochs
        return sum(self._recipe.image_size_at(step // each) ** 2 for step in steps)


class LogProgress(Callback):
    """A line for each validated epoch, and one now and then in between.

    Args:
        history: Where the epochs are.
        pace: Of the training.
    """

    def __init__(self, history: History, pace: MeasurePace) -> None:
        self._history = history
        self._pace = pace
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
        """Tells the progress now and then."""
        if time.monotonic() - self._told > _SECONDS_BETWEEN_LINES and trainer.is_global_zero:
            self._told = time.monotonic()
            logger.info(
                "epoch %d of %d, step %d of %.0f: %.0f slices/s, %s left%s",
                trainer.current_epoch + 1,
                trainer.max_epochs,
                trainer.global_step,
                trainer.estimated_stepping_batches,
                self._pace.slices_per_second,
                _spell(self._pace.left_s(trainer)),
                self._last_dice(),
            )

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Tells what was measured."""
        del pl_module
        epoch = self._history.ended(trainer)
        if epoch and trainer.is_global_zero:
            self._told = time.monotonic()
            logger.info(
                "epoch %d of %d: train loss %.3f, validation loss %.3f, validation Dice %.3f, "
                "%.0f slices/s (%.0f s, %s left)",
                epoch["epoch"],
                trainer.max_epochs,
                epoch["train_loss"],
                epoch["validation_loss"],
                epoch["validation_dice"],
                self._pace.slices_per_second,
                self._told - self._started,
                _spell(self._pace.left_s(trainer)),
            )

    def _last_dice(self) -> str:
        epochs = self._history.epochs
        return f", validation Dice {epochs[-1]['validation_dice']:.3f}" if epochs else ""


class TellEpochs(Callback):
    """Tells a listener of each epoch; behind the callback that stores it.

    Args:
        history: Where the epochs are.
        pace: Of the training.
        listen: Called in the process that writes, with what the history has of the epoch and
            `slices_per_second`.
    """

    def __init__(self, history: History, pace: MeasurePace, listen: EpochListener) -> None:
        self._history = history
        self._pace = pace
        self._listen = listen

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Tells the epoch on."""
        del pl_module
        if trainer.is_global_zero:
            speed = self._pace.slices_per_second  # 0 where only the validation was left to do
            pace = {"slices_per_second": speed} if speed else {}
            self._listen({**self._history.trained, **pace})


def _spell(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
