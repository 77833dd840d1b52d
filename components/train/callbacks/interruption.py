"""The end of a training run by SIGTERM, in all its processes."""

import logging
import signal
import threading
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import distributed

from components.train.exit_codes import PREEMPTED_STATUS

logger = logging.getLogger(__name__)


class EndOnSignal(Callback):
    """Ends the training after SIGTERM, as soon as the current step or validated volume is done.

    The next attempt continues after the last epoch. The processes agree on the end, as a signal
    reaches those of one pod only. The callback comes after the one that stores the epochs.
    """

    def __init__(self) -> None:
        self._signaled = False
        self._group: Any = None

    def on_train_start(self, trainer: lightning.Trainer, *_: object) -> None:
        """Handles SIGTERM from here on."""
        if trainer.world_size > 1:
            # with tensors on the CPU: the processes agree without waiting for their GPUs
            self._group = distributed.new_group(backend="gloo")
        if threading.current_thread() is threading.main_thread():
            # replaces Lightning's handler, in which one process starts what only all can do
            # together (trainer/connectors/signal_connector.py at 2.6.6); Lightning restores the
            # handler of before at the end
            signal.signal(signal.SIGTERM, self._on_signal)

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object, **__: object) -> None:
        """Raises SystemExit with `PREEMPTED_STATUS` after SIGTERM."""
        self._end_if_signaled(trainer, trainer.current_epoch)

    def on_validation_batch_end(self, trainer: lightning.Trainer, *_: object, **__: object) -> None:
        """Does the same."""
        self._end_if_signaled(trainer, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Does the same; the epoch is stored."""
        self._end_if_signaled(trainer, trainer.current_epoch + 1)

    def _on_signal(self, *_: object) -> None:
        self._signaled = True

    def _end_if_signaled(self, trainer: lightning.Trainer, stored: int) -> None:
        signaled = torch.tensor(int(self._signaled))
        if self._group is not None:
            distributed.all_reduce(signaled, distributed.ReduceOp.MAX, self._group)
        if signaled:
            form = "ended by SIGTERM: another attempt continues after epoch %d of %d"
            logger.warning(form, stored, trainer.max_epochs)
            raise SystemExit(PREEMPTED_STATUS)
