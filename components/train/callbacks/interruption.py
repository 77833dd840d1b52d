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
from components.train.data.slices import TumourSampler, VolumeSampler
from components.train.exit_codes import PREEMPTED_STATUS

logger = logging.getLogger(__name__)

_GO_ON, _STORE, _END = range(3)


class StoreWithinEpochs(Callback):
    """Stores the state between two steps: after SIGTERM, which ends the training, and by time.

    The processes agree on it after each step, so that all are at the same one: a signal reaches
    those of one pod only. After the last step of an epoch nothing is stored: the validation
    that belongs to it comes first. A signal in a validation ends it after the volume at hand;
    another attempt begins with the same validation. The callback stands behind all that change
    a state.

    Args:
        checkpoints: Where to.
        history: Of the training.
        every_s: Time between two states.
    """

    def __init__(self, checkpoints: Checkpoints, history: History, *, every_s: float) -> None:
        self._checkpoints = checkpoints
        self._history = history
        self._every_s = every_s
        self._stored = time.monotonic()
        self._steps = 0  # done in an epoch that was cut
        self._told = False
        self._validation_cut = False
        self._group: Any = None

    def state_dict(self) -> dict[str, Any]:
        """What Lightning keeps in the checkpoint."""
        return {"steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes where the attempt before stood."""
        self._steps = state_dict["steps"]

    def on_save_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Says how many micro-batches a step had, and which validation comes first."""
        del pl_module
        checkpoint["accumulate"] = trainer.accumulate_grad_batches
        if self._validation_cut:
            _mark_as_cut(checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"])

    def on_load_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Counts the batches done in those of this attempt, which may be smaller."""
        del pl_module
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for count in (progress["total"], progress["current"]):
            begun = count["ready"] * trainer.accumulate_grad_batches // checkpoint["accumulate"]
            more = begun - count["ready"]
            count.update({name: number + more for name, number in count.items()})

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Goes on after the last step, and listens to SIGTERM from here on."""
        del pl_module
        loader = trainer.train_dataloader
        assert isinstance(loader, DataLoader)
        assert isinstance(loader.sampler, TumourSampler)
        slices = trainer.accumulate_grad_batches * (loader.batch_size or 1)
        loader.sampler.skip(self._steps * slices)
        self._steps = 0
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
        steps, within_step = divmod(batch_idx + 1, trainer.accumulate_grad_batches)
        if within_step:
            return
        wish = self._agreed()
        if wish == _GO_ON or trainer.is_last_batch:
            return
        self._steps = steps
        self._store(trainer, steps)
        self._steps = 0
        if wish == _END:
            logger.warning("told to end: the state after step %d is stored", trainer.global_step)
            raise SystemExit(PREEMPTED_STATUS)

    def on_validation_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Ends the validation after SIGTERM."""
        self._validation_cut = self._agreed() == _END
        if self._validation_cut:
            assert isinstance(trainer.val_dataloaders, DataLoader)
            assert isinstance(trainer.val_dataloaders.sampler, VolumeSampler)
            trainer.val_dataloaders.sampler.end()

    # not before: callbacks that validate other weights put their own back until here
    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Stores the state as it was before a validation that was cut.

        Raises:
            SystemExit: After SIGTERM, with `PREEMPTED_STATUS`.
        """
        del pl_module
        if not self._validation_cut:
            return
        loader = trainer.train_dataloader
        assert isinstance(loader, DataLoader)
        self._store(trainer, len(loader) // trainer.accumulate_grad_batches)
        logger.warning(
            "told to end: the state after step %d is stored, its validation comes next",
            trainer.global_step,
        )
        raise SystemExit(PREEMPTED_STATUS)

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """The state of a validated epoch is stored elsewhere."""
        del pl_module
        if self._history.ended(trainer):
            self._stored = time.monotonic()

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Does not let what follows hold up an end that was told: the last state is stored.

        Raises:
            SystemExit: After SIGTERM, with `PREEMPTED_STATUS`.
        """
        del pl_module
        if self._agreed() == _END:
            logger.warning("told to end: all %d steps are done and stored", trainer.global_step)
            raise SystemExit(PREEMPTED_STATUS)

    def _end(self, _: int, __: FrameType | None) -> None:
        self._told = True

    def _agreed(self) -> int:
        """The most urgent of what the processes wish."""
        due = time.monotonic() - self._stored >= self._every_s
        wish = torch.tensor(_END if self._told else _STORE if due else _GO_ON)
        if self._group is not None:
            distributed.all_reduce(wish, distributed.ReduceOp.MAX, self._group)
        return int(wish)

    def _store(self, trainer: lightning.Trainer, steps: int) -> None:
        self._history.share(trainer)
        self._checkpoints.write_last(trainer)
        if trainer.is_global_zero:
            self._checkpoints.store(epoch=trainer.current_epoch, steps=steps, best=None)
        trainer.strategy.barrier()  # no process ends before the state is safe
        self._stored = time.monotonic()


def _mark_as_cut(progress: dict[str, Any]) -> None:
    """Makes Lightning begin with the validation, as if it was saved within its first volume.

    That is what its loops look for: training_epoch_loop.py at 2.6.6, `restarted_mid_evaluation`.
    """
    for count, begun in (("total", 1), ("current", 0)):
        progress[count] = {"ready": begun, "started": begun, "processed": 0, "completed": 0}
