"""The state of a training, kept in the store so that another attempt goes on from it."""

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file, save_file
from torch import nn

from components.shared.storage.store import Store, explain_disk

logger = logging.getLogger(__name__)

Epoch = dict[str, float]
EpochListener = Callable[[Epoch], None]

_SECONDS_BETWEEN_LINES = 15.0


class Checkpoints:
    """Two files of one training: `last.ckpt` (all of its state) and `best.safetensors`.

    Args:
        store: Where they outlive the machine.
        prefix: Folder in the store, equal in every attempt at the training.
        folder: Local folder for the files in work.
    """

    def __init__(self, store: Store, prefix: str, folder: Path) -> None:
        self._store = store
        self._prefix = prefix
        self._folder = folder / prefix
        with explain_disk(f"folder {folder}"):
            self._folder.mkdir(parents=True, exist_ok=True)

    def last(self) -> Path | None:
        """Fetches the last whole state; `None` at the first attempt."""
        try:
            self._store.download(f"{self._prefix}/last.ckpt", self._folder / "last.ckpt")
        except KeyError:
            return None
        return self._folder / "last.ckpt"

    def save_last(self, trainer: lightning.Trainer) -> None:
        """Stores the training's state."""
        with explain_disk(f"folder {self._folder}"):
            trainer.save_checkpoint(self._folder / "last.ckpt", weights_only=False)
        self._store.upload(self._folder / "last.ckpt", f"{self._prefix}/last.ckpt")

    def save_best(self, network: nn.Module) -> None:
        """Stores the weights of the best epoch so far."""
        weights = {name: value.contiguous() for name, value in network.state_dict().items()}
        with explain_disk(f"folder {self._folder}"):
            save_file(weights, self._folder / "best.safetensors")
        self._store.upload(self._folder / "best.safetensors", f"{self._prefix}/best.safetensors")

    def load_best(self, network: nn.Module) -> None:
        """Puts the weights of the best epoch into the network."""
        path = self._folder / "best.safetensors"
        self._store.download(f"{self._prefix}/best.safetensors", path)
        network.load_state_dict(load_file(path))

    def remove_local(self) -> None:
        """Deletes the local files; those in the store stay until the pipeline run is over."""
        shutil.rmtree(self._folder)


class KeepCheckpoints(Callback):
    """Stores the state after every validated epoch and tells how the training goes.

    Args:
        checkpoints: Where to.
        network: Its weights are what the best epoch is about.
        epochs: Length of the training, for the log.
        listen: Called with each validated epoch after it is stored.
    """

    def __init__(
        self, checkpoints: Checkpoints, network: nn.Module, epochs: int, listen: EpochListener
    ) -> None:
        self.history: list[Epoch] = []
        self._checkpoints = checkpoints
        self._network = network
        self._epochs = epochs
        self._listen = listen
        self._started = self._told = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """What Lightning keeps in the checkpoint."""
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the history of the attempts before this one."""
        self.history = state_dict["history"]
        logger.info("going on after epoch %d of %d", self.history[-1]["epoch"], self._epochs)

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Tells the progress of long epochs."""
        if time.monotonic() - self._told > _SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            step, steps = trainer.global_step, trainer.estimated_stepping_batches
            logger.info("step %d of %.0f", step, steps)

    # not on_validation_end: the training loop's own metrics (train_loss) come later
    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Stores the epoch if it was validated."""
        del pl_module
        if (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1):
            return
        epoch = self._measured(trainer)
        best = max((past["validation_dice"] for past in self.history), default=-1.0)
        self.history.append(epoch)
        if epoch["validation_dice"] > best:
            self._checkpoints.save_best(self._network)
        self._checkpoints.save_last(trainer)
        self._listen(epoch)

    def _measured(self, trainer: lightning.Trainer) -> Epoch:
        names = ("train_loss", "validation_loss", "validation_dice")
        epoch = {name: float(trainer.callback_metrics[name]) for name in names}
        epoch["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        epoch["epoch"] = trainer.current_epoch + 1
        self._told = time.monotonic()
        logger.info(
            "epoch %d of %d: train loss %.3f, validation loss %.3f, validation Dice %.3f (%.0f s)",
            *(epoch["epoch"], self._epochs, epoch["train_loss"]),
            *(epoch["validation_loss"], epoch["validation_dice"], self._told - self._started),
        )
        return epoch
