"""Stores the state of each validated epoch."""

import lightning
from lightning.pytorch.callbacks import Callback
from torch import nn

from components.train.callbacks.history import History
from components.train.checkpoints import Checkpoints, Weights
from components.train.task import SegmentationTask


class KeepCheckpoints(Callback):
    """Stores the state after every validated epoch, and the weights of the best one.

    Weight averaging replaces the network's weights during the validation. The weights that were
    validated are kept as the best, wherever such a callback stands in the list.

    Args:
        checkpoints: Storage of the states.
        history: Epochs so far; comes before this callback in the list.
    """

    def __init__(self, checkpoints: Checkpoints, history: History) -> None:
        self._checkpoints = checkpoints
        self._history = history
        self._validated: Weights = {}

    # not on_validation_epoch_start: there averaged weights are put in; here all are in place
    def on_validation_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: object,
        batch_idx: int,
        *_: object,
    ) -> None:
        """Copies the weights that are validated."""
        del batch
        assert isinstance(pl_module, SegmentationTask)
        if batch_idx == 0 and trainer.is_global_zero:
            self._validated = _copy(pl_module.segmenter.network)

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Stores the epoch if it was validated."""
        epoch = self._history.ended(trainer)
        if epoch is None:
            return
        self._checkpoints.write_last(trainer)
        if trainer.is_global_zero:
            best = self._validated if self._history.is_kept(epoch) else None
            self._checkpoints.store(epoch=int(epoch["epoch"]), best=best)
        trainer.strategy.barrier()  # no process continues before the state is safe


def _copy(network: nn.Module) -> Weights:
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
