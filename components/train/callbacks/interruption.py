"""Checkpoints within an epoch: after SIGTERM in any process, and by time."""

import logging
import signal
import threading
import time
from typing import Any, NoReturn

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import distributed
from torch.utils.data import DataLoader

from components.train.callbacks.history import History
from components.train.checkpoints import Checkpoints
from components.train.data.slices import TumourSampler
from components.train.exit_codes import PREEMPTED_STATUS

logger = logging.getLogger(__name__)

_CONTINUE, _STORE, _END = range(3)


class StoreWithinEpochs(Callback):
    """Stores the state between two steps: after SIGTERM, which ends the training, and by time.

    The processes agree on it after each step, so that all store the same one: a signal reaches
    those of one pod only. After the last step of an epoch nothing is stored: its validation comes
    first. A signal in a validation ends it after the current volume; the next attempt begins with
    the same validation. The callback comes after all that change a state.

    Args:
        checkpoints: Storage of the states.
        history: Epochs so far.
        every_s: Seconds between two states.
    """

    def __init__(self, checkpoints: Checkpoints, history: History, *, every_s: float) -> None:
        self._checkpoints = checkpoints
        self._history = history
        self._every_s = every_s
        self._stored = time.monotonic()
        self._signalled = False
        self._interrupts_validation = False
        self._group: Any = None

    def on_save_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Adds the number of micro-batches in a step, and a validation that is to come first."""
        del pl_module
        checkpoint["accumulate"] = trainer.accumulate_grad_batches
        if self._interrupts_validation:
            # as saved within its first volume: Lightning then begins with the validation
            # (`restarted_mid_evaluation` in training_epoch_loop.py at 2.6.6)
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            for count, begun in (("total", 1), ("current", 0)):
                progress[count] |= {"ready": begun, "started": begun}
                progress[count] |= {"processed": 0, "completed": 0}

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

    def on_train_start(self, trainer: lightning.Trainer, *_: object) -> None:
        """Skips the slices of the steps done in this epoch, and handles SIGTERM from here on."""
        loader = _loader(trainer)
        assert isinstance(loader.sampler, TumourSampler)
        batches = (trainer.fit_loop.batch_idx + 1) % len(loader)  # 0 after a whole epoch
        loader.sampler.skip(batches * (loader.batch_size or 1))
        if trainer.world_size > 1:
            # with tensors on the CPU: the processes agree without waiting for their GPUs
            self._group = distributed.new_group(backend="gloo")
        if threading.current_thread() is threading.main_thread():
            # replaces Lightning's handler, in which one process starts what only all can do
            # together (trainer/connectors/signal_connector.py at 2.6.6); Lightning restores the
            # handler of before at the end
            signal.signal(signal.SIGTERM, self._on_signal)

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
        if wish == _CONTINUE or trainer.is_last_batch:
            return
        self._store(trainer, steps)
        if wish == _END:
            _end(f"the state after step {trainer.global_step} is stored")

    def on_validation_batch_end(self, *_: object) -> None:
        """Ends the validation after SIGTERM.

        Raises:
            StopIteration: Which Lightning takes for the end of the volumes.
        """
        self._interrupts_validation = self._agreed() == _END
        if self._interrupts_validation:
            raise StopIteration  # see `run` in evaluation_loop.py at 2.6.6

    # not before: until here callbacks that validate other weights restore the trained ones
    def on_validation_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Stores the state from before an interrupted validation.

        Raises:
            SystemExit: After SIGTERM, with `PREEMPTED_STATUS`.
        """
        if self._interrupts_validation:
            self._store(trainer, len(_loader(trainer)) // trainer.accumulate_grad_batches)
            _end(f"the state after step {trainer.global_step} is stored, before its validation")

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Counts the state of a validated epoch, which another callback stores."""
        if self._history.ended(trainer):
            self._stored = time.monotonic()

    def on_train_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Ends at once after SIGTERM, as the last state is stored.

        Raises:
            SystemExit: After SIGTERM, with `PREEMPTED_STATUS`.
        """
        if self._agreed() == _END:
            _end(f"all {trainer.global_step} steps are done and stored")

    def _on_signal(self, *_: object) -> None:
        self._signalled = True

    def _agreed(self) -> int:
        """Returns the most urgent wish of all processes."""
        due = time.monotonic() - self._stored >= self._every_s
        wish = torch.tensor(_END if self._signalled else _STORE if due else _CONTINUE)
        if self._group is not None:
            distributed.all_reduce(wish, distributed.ReduceOp.MAX, self._group)
        return int(wish)

    def _store(self, trainer: lightning.Trainer, steps: int) -> None:
        self._history.average_loss(trainer)
        self._checkpoints.write_last(trainer)
        if trainer.is_global_zero:
            self._checkpoints.store(epoch=trainer.current_epoch, steps=steps, best=None)
        trainer.strategy.barrier()  # no process ends before the state is safe
        self._stored = time.monotonic()


def _loader(trainer: lightning.Trainer) -> DataLoader[Any]:
    assert isinstance(trainer.train_dataloader, DataLoader)
    return trainer.train_dataloader


def _end(message: str) -> NoReturn:
    logger.warning("ended by SIGTERM: %s", message)
    raise SystemExit(PREEMPTED_STATUS)
