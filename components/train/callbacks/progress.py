"""Progress of a training run, in log lines and for a listener."""

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


class ReportProgress(Callback):
    """Reports a training run in log lines and to a listener.

    It logs a line for each validated epoch, and one every few seconds in between. It comes after
    the callback that stores an epoch, so the listener only receives stored epochs: their
    measurements and `slices_per_second`, in the process that writes.
    """

    def __init__(self, recipe: Recipe, history: History, listen: EpochListener) -> None:
        self._recipe = recipe
        self._history = history
        self._listen = listen
        self._created = self._logged = time.monotonic()
        self._started = self._epoch_started = 0.0
        self._first = self._epoch_first = 0
        # of all processes in the current epoch, with reading and augmentation, without validation
        self._slices_per_second = 0.0

    def on_train_start(self, trainer: lightning.Trainer, *_: object) -> None:
        """Starts the clock, and logs the place at which a training resumes."""
        self._started, self._first = time.monotonic(), trainer.global_step
        if trainer.global_step and trainer.is_global_zero:
            done, step = trainer.current_epoch, trainer.global_step
            logger.info("resuming after epoch %d of %d (step %d)", done, trainer.max_epochs, step)

    def on_train_epoch_start(self, trainer: lightning.Trainer, *_: object) -> None:
        """Starts the clock of an epoch."""
        self._epoch_started, self._epoch_first = time.monotonic(), trainer.global_step

    def on_train_batch_end(
        self, trainer: lightning.Trainer, _: object, __: object, batch: SliceTensors, *___: object
    ) -> None:
        """Measures the speed, and logs the progress every few seconds."""
        slices = len(batch[2]) * trainer.accumulate_grad_batches * trainer.world_size
        steps, now = trainer.global_step - self._epoch_first, time.monotonic()
        self._slices_per_second = slices * steps / (now - self._epoch_started)
        if now - self._logged > _SECONDS_BETWEEN_LINES and trainer.is_global_zero:
            self._logged, last = now, self._history.epochs[-1:]
            logger.info(
                "epoch %d of %d, step %d of %.0f: %.0f slices/s, %s left%s",
                trainer.current_epoch + 1,
                trainer.max_epochs,
                trainer.global_step,
                trainer.estimated_stepping_batches,
                self._slices_per_second,
                self._time_left(trainer),
                "".join(f", validation Dice {epoch['validation_dice']:.3f}" for epoch in last),
            )

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Logs a validated epoch, and passes every epoch to the listener."""
        if not trainer.is_global_zero:
            return
        epoch = self._history.ended(trainer)
        if epoch:
            self._logged = time.monotonic()
            logger.info(
                "epoch %d of %d: train loss %.3f, validation loss %.3f, validation Dice %.3f, "
                "%.0f slices/s (%.0f s, %s left)",
                epoch["epoch"],
                trainer.max_epochs,
                epoch["train_loss"],
                epoch["validation_loss"],
                epoch["validation_dice"],
                self._slices_per_second,
                self._logged - self._created,
                self._time_left(trainer),
            )
        self._listen({**self._history.trained, "slices_per_second": self._slices_per_second})

    def _time_left(self, trainer: lightning.Trainer) -> str:
        """Estimates the time until the last step, with validations."""
        done = self._work(trainer, range(self._first, trainer.global_step))
        last = int(trainer.estimated_stepping_batches)
        left = self._work(trainer, range(trainer.global_step, last))
        return _spell((time.monotonic() - self._started) * left / done if done else 0.0)

    def _work(self, trainer: lightning.Trainer, steps: range) -> int:
        """Counts the pixels of a slice over the steps, as a network's time depends on them."""
        each = int(trainer.estimated_stepping_batches) // self._recipe.schedule.epochs
        return sum(self._recipe.image_size_at(step // each) ** 2 for step in steps)


def _spell(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
