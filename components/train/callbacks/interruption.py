"""A training that is told to end saves its state first, in all its processes at once."""

import logging
import signal
import threading
import time
from types import FrameType
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import distributed
from torch.utils.data import DataLoader

from components.train.callbacks.history import History
from components.train.checkpoints import Checkpoints
from components.train.slices import TumourSampler
from components.train.statuses import PREEMPTED_STATUS

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_STATES = 240.0  # a kill without warning costs no more, and the time to store

_GO_ON, _STORE, _END = range(3)


class StoreWithinEpochs(Callback):
    """Stores the state between two steps: after SIGTERM, which ends the training, and by time.

    The processes agree on it after each step, so that all are at the same one: a signal reaches
    those of one pod only. After the last step of an epoch nothing is stored: the validation
    that belongs to it comes first. It stands behind all callbacks that change a state.

    Args:
        checkpoints: Where to.
        history: Of the training.
    """

    def __init__(self, checkpoints: Checkpoints, history: History) -> None:
        self._checkpoints = checkpoints
        self._history = history
        self._stored = time.monotonic()
        self._batches = 0  # done in an epoch that was cut
        self._told = False
        self._group: Any = None

    def state_dict(self) -> dict[str, Any]:
        """What Lightning keeps in the checkpoint."""
        return {"batches": self._batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes where the attempt before stood."""
        self._batches = state_dict["batches"]

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Goes on after the last batch, and listens to SIGTERM from here on."""
        del pl_module
        loader = trainer.train_dataloader
        assert isinstance(loader, DataLoader)
        assert isinstance(loader.sampler, TumourSampler)
        loader.sampler.skip(self._batches * (loader.batch_size or 1))
        self._batches = 0
        if trainer.world_size > 1:
            # numbers on the CPU: the processes agree without waiting for their GPUs
            self._group = distributed.new_group(backend="gloo")
        if threading.current_thread() is threading.main_thread():
            # in the place of Lightning's handler, in which one process starts what only all can
            # do together (trainer/connectors/signal_connector.py at 2.6.6); Lightning takes its
            # own away at the end, and this with it
            signal.signal(signal.SIGTERM, self._end)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Stores the state if it is time to.

        Raises:
            SystemExit: After SIGTERM, with `PREEMPTED_STATUS`.
        """
        del pl_module, outputs, batch
        wish = self._agreed()
        if wish == _GO_ON or trainer.is_last_batch:
            return
        self._store(trainer, batch_idx + 1)
        if wish == _END:
            logger.warning("told to end: the state after step %d is stored", trainer.global_step)
            raise SystemExit(PREEMPTED_STATUS)

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """The state of a validated epoch is stored elsewhere."""
        del pl_module
        if self._history.ended(trainer):
            self._stored = time.monotonic()

    def _end(self, _: int, __: FrameType | None) -> None:
        self._told = True

    def _agreed(self) -> int:
        """The most urgent of what the processes wish."""
        due = time.monotonic() - self._stored > _SECONDS_BETWEEN_STATES
        wish = torch.tensor(_END if self._told else _STORE if due else _GO_ON)
        if self._group is not None:
            distributed.all_reduce(wish, distributed.ReduceOp.MAX, self._group)
        return int(wish)

    def _store(self, trainer: lightning.Trainer, batches: int) -> None:
        self._history.share(trainer)
        self._batches = batches
        self._checkpoints.write_last(trainer)
        self._batches = 0
        if trainer.is_global_zero:
            self._checkpoints.store(epoch=trainer.current_epoch, batches=batches, best=None)
        trainer.strategy.barrier()  # no process ends before the state is safe
        self._stored = time.monotonic()
