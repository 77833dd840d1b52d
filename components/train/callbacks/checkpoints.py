"""Stores the state of each epoch."""

import lightning
from lightning.pytorch.callbacks import Callback

from components.train.callbacks.history import History
from components.train.checkpoints import Checkpoints, Weights
from components.train.task import SegmentationTask


class KeepCheckpoints(Callback):
    """Stores the state after every epoch, and the weights of the best one.

    Weight averaging replaces the network's weights during the validation. The weights that were
    validated are kept as the best, wherever such a callback stands in the list. The history comes
    before this callback.
    """

    def __init__(self, checkpoints: Checkpoints, history: History) -> None:
        self._checkpoints = checkpoints
        self._history = history
        self._validated: Weights = {}

    # not on_validation_epoch_start: there averaged weights are put in; here all are in place
    def on_validation_batch_start(
        self,
        trainer: lightning.Trainer,
        task: lightning.LightningModule,
        _: object,
        index: int,
        *__: object,
    ) -> None:
        """Copies the weights that are validated."""
        assert isinstance(task, SegmentationTask)
        if index == 0 and trainer.is_global_zero:
            state = task.segmenter.network.state_dict()
            self._validated = {name: value.detach().cpu().clone() for name, value in state.items()}

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Stores the epoch."""
        self._checkpoints.write_last(trainer)
        if trainer.is_global_zero:
            epoch = self._history.ended(trainer)
            best = self._validated if epoch and self._history.is_kept(epoch) else None
            self._checkpoints.store(epoch=trainer.current_epoch + 1, best=best)
        trainer.strategy.barrier()  # no process continues before the state is safe
