"""What is stored of each validated epoch."""

import lightning
from lightning.pytorch.callbacks import Callback
from torch import nn

from components.train.callbacks.history import History
from components.train.checkpoints import Checkpoints, Weights
from components.train.task import SegmentationTask


class KeepCheckpoints(Callback):
    """Stores the state after every validated epoch, and the weights of the best one.

    Weight averaging puts other weights into the network for the time of the validation. What
    is kept as the best is what was validated, wherever such a callback stands in the list.

    Args:
        checkpoints: Where to.
        history: Where the epochs are; it stands before this callback.
    """

    def __init__(self, checkpoints: Checkpoints, history: History) -> None:
        self._checkpoints = checkpoints
        self._history = history
        self._validated: Weights = {}

    # not on_validation_epoch_start: averaged weights come in there; here all are in
    def on_validation_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Takes a copy of the weights that are validated."""
        del batch, dataloader_idx
        assert isinstance(pl_module, SegmentationTask)
        if batch_idx == 0 and trainer.is_global_zero:
            self._validated = _copy(pl_module.segmenter.network)

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Stores the epoch if it was validated."""
        del pl_module
        epoch = self._history.ended(trainer)
        if epoch is None:
            return
        self._checkpoints.write_last(trainer)
        if trainer.is_global_zero:
            best = self._validated if self._history.is_kept(epoch) else None
            self._checkpoints.store(epoch=int(epoch["epoch"]), best=best)
        trainer.strategy.barrier()  # no process goes on before the state is safe


def _copy(network: nn.Module) -> Weights:
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
