"""Training with as many CPU threads as are of use."""

import time
from collections.abc import Callable

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from components.shared.threads import FastestThreads
from components.train.callbacks.rehearsal import rehearsal
from components.train.data.slices import SliceTensors
from components.train.recipe import Compute


class ChooseThreads(Callback):
    """Sets the CPU threads of a training: as many as are asked for, or the fastest number.

    To find it, the network's part of a step is rehearsed on a copy, so that a look changes
    nothing. A choice does: sums over a batch are split among the threads, so the last bits of
    what is learned from there on depend on their number.

    Args:
        network: What is trained.
        compute: Its `threads` are how many; `None` looks for the fastest number after the first
            step, and again when steps become slow, or takes all if `deterministic` is set.
        side_at: Side of the slices that an epoch learns from, in pixels.
    """

    def __init__(self, network: nn.Module, compute: Compute, side_at: Callable[[int], int]) -> None:
        self._network = network
        self._side_at = side_at
        self._before = torch.get_num_threads()
        self._asked = compute.threads or (self._before if compute.deterministic else None)
        self._fastest = FastestThreads("training", self._before)
        self._step_started: float | None = None  # of the step at hand, or the last one

    def setup(self, *_: object, **__: object) -> None:
        """Takes the number that is asked for."""
        if self._asked:
            torch.set_num_threads(self._asked)

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: SliceTensors,
        batch_idx: int,
    ) -> None:
        """Looks for the fastest number where it is time to, but for the first step."""
        del pl_module, batch_idx
        begun = self._step_started is not None
        if begun and not self._asked and batch[0].device.type == "cpu":
            side = self._side_at(trainer.current_epoch)
            self._fastest.rehearse(lambda: rehearsal(self._network, trainer, batch[0], side))
        self._step_started = time.monotonic()

    def on_train_batch_end(self, *_: object) -> None:
        """Takes the step's time."""
        assert self._step_started is not None
        self._fastest.took(time.monotonic() - self._step_started)

    def teardown(self, *_: object, **__: object) -> None:
        """Leaves all threads to what comes after the training."""
        torch.set_num_threads(self._before)

    def on_exception(self, *_: object) -> None:
        """Does the same: Lightning tears no callback down then."""
        torch.set_num_threads(self._before)
