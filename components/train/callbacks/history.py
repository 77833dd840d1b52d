"""The epochs of a training run, over all its attempts."""

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from components.train.recipe import Schedule

Epoch = dict[str, float]


class History(Callback):
    """Measures each validated epoch, and ends a training without gain.

    The checkpoint keeps the measurements. Lightning's `EarlyStopping` counts in its own state, so
    an attempt that resumes after the end would train on. Other callbacks ask the history for the
    epoch and come after it in the list.

    Args:
        schedule: Phases, exported epoch (last or best), and patience.

    Attributes:
        epochs: One entry per validated epoch: number (from 1), losses, Dice, and the learning rate
            of its last step.
        trained: The epoch that ended last; without a validation it lacks those measurements.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.epochs: list[Epoch] = []
        self.trained: Epoch = {}
        self._schedule = schedule
        self._learning_rate = 0.0
        self._loss_sum = torch.zeros((), dtype=torch.float64)
        self._steps = 0

    def state_dict(self) -> dict[str, Any]:
        """Returns what Lightning keeps in the checkpoint."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the epochs of earlier attempts."""
        self.epochs = state_dict["epochs"]

    def ended(self, trainer: lightning.Trainer) -> Epoch | None:
        """Returns the epoch that ends now, if it was validated."""
        number = trainer.current_epoch + 1
        return self.epochs[-1] if self.epochs and self.epochs[-1]["epoch"] == number else None

    def is_kept(self, epoch: Epoch) -> bool:
        """Returns whether this epoch would be exported if no better one followed."""
        return epoch["epoch"] == self.kept

    @property
    def kept(self) -> int | None:
        """Number of the epoch whose weights would be exported; `None` before the last phase."""
        counted = self._counted
        if not counted:
            return None
        best = max(counted, key=lambda epoch: epoch["validation_dice"])
        return int((counted[-1] if self._schedule.checkpoint == "last" else best)["epoch"])

    @property
    def _counted(self) -> list[Epoch]:
        first = self._schedule.phase_starts[-2] + 1
        return [epoch for epoch in self.epochs if epoch["epoch"] >= first]

    def on_train_start(self, trainer: lightning.Trainer, *_: object) -> None:
        """Stops where an earlier attempt has ended."""
        self._stop_without_gain(trainer)

    def on_train_epoch_start(self, trainer: lightning.Trainer, *_: object) -> None:
        """Lets Lightning validate the epochs of the schedule, of which the last one is one."""
        is_validated = self._schedule.is_validated(trainer.current_epoch)
        trainer.check_val_every_n_epoch = 1 if is_validated else self._schedule.epochs + 1

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: object) -> None:
        """Remembers the learning rate, before the schedule changes it."""
        self._learning_rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: lightning.Trainer, _: object, outputs: object, __: object, index: int
    ) -> None:
        """Adds the loss of a micro-batch on its device, without waiting for a GPU.

        Lightning has divided it by the number of micro-batches in a step.
        """
        assert isinstance(outputs, dict)
        loss = outputs["loss"]
        self._loss_sum = self._loss_sum.to(loss.device) + loss
        self._steps += (index + 1) % trainer.accumulate_grad_batches == 0

    # after the validation
    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Adds the epoch to the list if it was validated."""
        total = trainer.strategy.reduce(self._loss_sum, reduce_op="mean")
        self.trained = {
            "epoch": trainer.current_epoch + 1,
            "train_loss": float(total) / self._steps,
            "learning_rate": self._learning_rate,
        }
        if self._schedule.is_validated(trainer.current_epoch):
            measured = trainer.callback_metrics
            names = [name for name in measured if name.endswith(("validation_loss", "_dice"))]
            self.trained |= {name: float(measured[name]) for name in names}
            self.epochs.append(self.trained)
        self._loss_sum, self._steps = torch.zeros_like(self._loss_sum), 0
        self._stop_without_gain(trainer)

    def _stop_without_gain(self, trainer: lightning.Trainer) -> None:
        dice = [epoch["validation_dice"] for epoch in self._counted]
        patience = self._schedule.patience
        if dice and patience and len(dice) - 1 - dice.index(max(dice)) >= patience:
            trainer.should_stop = True
