"""The validated epochs of a training, over all its attempts."""

from collections.abc import Callable
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

Epoch = dict[str, float]
EpochListener = Callable[[Epoch], None]


class History(Callback):
    """Measures each validated epoch; the checkpoint keeps what was measured.

    Every process measures: the training loss is their mean, for which they wait for each other.
    Other callbacks ask it for the epoch, so it stands before them in the list.

    Attributes:
        epochs: One entry a validated epoch: its number (from 1), losses, Dice, learning rate.
    """

    def __init__(self) -> None:
        self.epochs: list[Epoch] = []

    def state_dict(self) -> dict[str, Any]:
        """What Lightning keeps in the checkpoint."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the epochs of the attempts before this one."""
        self.epochs = state_dict["epochs"]

    def ended(self, trainer: lightning.Trainer) -> Epoch | None:
        """The epoch that ends now, if it was validated."""
        number = trainer.current_epoch + 1
        return self.epochs[-1] if self.epochs and self.epochs[-1]["epoch"] == number else None

    def is_best(self, epoch: Epoch) -> bool:
        """Whether all epochs before had less validation Dice."""
        before = (past["validation_dice"] for past in self.epochs if past is not epoch)
        return epoch["validation_dice"] > max(before, default=-1.0)

    # not on_validation_end: the training loop's own metrics (train_loss) come later
    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Takes the epoch in if it was validated."""
        del pl_module
        if (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0:
            self.epochs.append(_measured(trainer))


class TellEpochs(Callback):
    """Tells a listener of each validated epoch; behind the callback that stores it.

    Args:
        history: Where the epochs are.
        listen: Called in the process that writes.
    """

    def __init__(self, history: History, listen: EpochListener) -> None:
        self._history = history
        self._listen = listen

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Tells the epoch on."""
        del pl_module
        epoch = self._history.ended(trainer)
        if epoch and trainer.is_global_zero:
            self._listen(epoch)


def _measured(trainer: lightning.Trainer) -> Epoch:
    names = ("train_loss", "validation_loss", "validation_dice")
    epoch = {name: float(trainer.callback_metrics[name]) for name in names}
    epoch["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
    epoch["epoch"] = trainer.current_epoch + 1
    return epoch
