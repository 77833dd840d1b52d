"""Number of CPU threads of a training run."""

import copy
from collections.abc import Callable

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from components.shared.threads import FastestThreads, Work
from components.train.data.slices import SliceTensors
from components.train.recipe import Compute


class ChooseThreads(Callback):
    """Sets the CPU threads of a training: the recipe's number, or the fastest one.

    To find it, the network's part of a step is rehearsed on a copy, which has no effect. The
    choice has one: sums over a batch are split among the threads, so the last bits of the weights
    depend on their number.

    Args:
        network: Network in training.
        compute: Settings; `threads=None` looks for the fastest number after the first step, and
            again from time to time, or uses all if `deterministic` is set.
        side_at: Function from an epoch to the side of its slices, in pixels.
    """

    def __init__(self, network: nn.Module, compute: Compute, side_at: Callable[[int], int]) -> None:
        self._network = network
        self._side_at = side_at
        self._before = torch.get_num_threads()
        self._asked = compute.threads or (self._before if compute.deterministic else None)
        self._fastest = FastestThreads("training", self._before)
        self._begun = False

    def setup(self, *_: object, **__: object) -> None:
        """Sets the recipe's number."""
        if self._asked:
            torch.set_num_threads(self._asked)

    def on_train_batch_start(
        self, trainer: lightning.Trainer, _: object, batch: SliceTensors, *__: object
    ) -> None:
        """Looks for the fastest number if it is time to, except at the first step."""
        if self._begun and not self._asked and batch[0].device.type == "cpu":
            side = self._side_at(trainer.current_epoch)
            self._fastest.rehearse(lambda: self._rehearsal(trainer, batch[0][..., :side, :side]))
        self._begun = True

    def teardown(self, *_: object, **__: object) -> None:
        """Restores the number of threads."""
        torch.set_num_threads(self._before)

    def on_exception(self, *_: object) -> None:
        """Does the same: then Lightning calls no teardown."""
        torch.set_num_threads(self._before)

    def _rehearsal(self, trainer: lightning.Trainer, images: Tensor) -> Work:
        copied = copy.deepcopy(self._network)
        batch = images.float().contiguous(memory_format=torch.channels_last)

        def work() -> None:
            with trainer.precision_plugin.forward_context():
                output = copied(batch)
            output.float().sum().backward()

        return work
