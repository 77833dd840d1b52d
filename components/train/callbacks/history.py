"""The epochs of a training, over all its attempts."""

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from components.train.recipe import Schedule

Epoch = dict[str, float]


class History(Callback):
    """Measures each validated epoch; the checkpoint keeps what was measured.

    Every process measures: the training loss is their mean, for which they wait for each other.
    It is summed up here and not by Lightning, whose sums are in no checkpoint: an epoch that is
    cut in two has one loss. Other callbacks ask it for the epoch, so it stands before them in
    the list.

    Args:
        schedule: Which epochs count, and whether the last of them or the best is kept.

    Attributes:
        epochs: One entry a validated epoch: its number (from 1), losses, Dice, learning rate.
        trained: The epoch that ended last, without what only a validation gives if it had none.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.epochs: list[Epoch] = []
        self.trained: Epoch = {}
        self._keep = schedule.checkpoint
        self._counted_from = schedule.phase_starts[-2] + 1
        self._loss_sum = torch.zeros((), dtype=torch.float64)
        self._steps = 0

    def state_dict(self) -> dict[str, Any]:
        """What Lightning keeps in the checkpoint."""
        return {"epochs": self.epochs, "loss_sum": float(self._loss_sum), "steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the epochs of the attempts before this one, and what there is of the next."""
        self.epochs = state_dict["epochs"]
        self._loss_sum = torch.tensor(state_dict["loss_sum"], dtype=torch.float64)
        self._steps = state_dict["steps"]

    def share(self, trainer: lightning.Trainer) -> None:
        """Makes the loss so far that of all processes: the checkpoint is written by one."""
        total = trainer.strategy.reduce(self._loss_sum, reduce_op="mean")
        assert isinstance(total, torch.Tensor)
        self._loss_sum = total

    def ended(self, trainer: lightning.Trainer) -> Epoch | None:
        """The epoch that ends now, if it was validated."""
        number = trainer.current_epoch + 1
        return self.epochs[-1] if self.epochs and self.epochs[-1]["epoch"] == number else None

    def is_kept(self, epoch: Epoch) -> bool:
        """Whether what was validated now is what would be exported if nothing better came."""
        return epoch["epoch"] == self.kept

    @property
    def kept(self) -> int | None:
        """Number of the epoch whose weights would be exported; `None` before the last phase."""
        counted = self._counted
        if not counted:
            return None
        best = max(counted, key=lambda epoch: epoch["validation_dice"])
        return int((counted[-1] if self._keep == "last" else best)["epoch"])

    @property
    def without_gain(self) -> int:
        """Validations since the best one of the last phase."""
        dice = [epoch["validation_dice"] for epoch in self._counted]
        return len(dice) - 1 - dice.index(max(dice)) if dice else 0

    @property
    def _counted(self) -> list[Epoch]:
        return [epoch for epoch in self.epochs if epoch["epoch"] >= self._counted_from]

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Takes the batch's loss in, where it was computed: a GPU is not waited for.

        It is the share of a micro-batch: Lightning has divided it by their number in a step.
        """
        del pl_module, batch
        assert isinstance(outputs, dict)
        loss = outputs["loss"]
        self._loss_sum = self._loss_sum.to(loss.device) + loss
        self._steps += (batch_idx + 1) % trainer.accumulate_grad_batches == 0

    # after the validation
    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Takes the epoch in, for good if it was validated."""
        del pl_module
        self.share(trainer)
        self.trained = {
            "epoch": trainer.current_epoch + 1,
            "train_loss": float(self._loss_sum) / self._steps,
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
        }
        if (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0:
            names = ("validation_loss", "validation_dice")
            self.trained |= {name: float(trainer.callback_metrics[name]) for name in names}
            self.epochs.append(self.trained)
        self._loss_sum, self._steps = torch.zeros_like(self._loss_sum), 0
