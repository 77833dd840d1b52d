"""A training that gets no better ends."""

import lightning
from lightning.pytorch.callbacks import Callback

from components.train.callbacks.history import History


class StopWithoutGain(Callback):
    """Ends the training after so many validations without a better one.

    Lightning's `EarlyStopping` counts in its own state, and an attempt that resumes after the end
    would train on; this one asks the history, which the checkpoint keeps. It stands behind it.

    Args:
        history: Of the training.
        patience: In validations.
    """

    def __init__(self, history: History, patience: int) -> None:
        self._history = history
        self._patience = patience

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Does not go on where an attempt before has ended."""
        del pl_module
        self._stop(trainer)

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Looks whether it is time to."""
        del pl_module
        self._stop(trainer)

    def _stop(self, trainer: lightning.Trainer) -> None:
        if self._history.without_gain >= self._patience:
            trainer.should_stop = True
