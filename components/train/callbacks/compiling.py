"""A network compiled for its device, where that can be done."""

import logging
from collections.abc import Callable

import lightning
from lightning.pytorch.callbacks import Callback
from torch._dynamo.exc import TorchDynamoException

from components.train.callbacks.rehearsal import rehearsal
from components.train.data.slices import SliceTensors
from components.train.task import SegmentationTask

logger = logging.getLogger(__name__)


class CompileNetwork(Callback):
    """Lets `torch.compile` make the program of a training step; says so where it cannot.

    It needs a C++ compiler on a CPU, Triton and a C compiler on a GPU. A step is tried on a copy
    first, so that what fails has changed nothing.

    Args:
        side_at: Side of the slices that an epoch learns from, in pixels.
    """

    def __init__(self, side_at: Callable[[int], int]) -> None:
        self._side_at = side_at
        self._tried = False

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: SliceTensors,
        batch_idx: int,
    ) -> None:
        """Compiles before the first step of an attempt."""
        del batch_idx
        assert isinstance(pl_module, SegmentationTask)
        if self._tried:
            return
        self._tried = True
        if trainer.world_size > 1:  # batch normalization over processes is no part of a program
            reason: str | None = "several processes train together"
        else:
            side = self._side_at(trainer.current_epoch)
            reason = _why_not(pl_module, trainer, batch, side)
        if reason:
            logger.warning("training without torch.compile: %s", reason)
        else:
            pl_module.compile_network()


def _why_not(
    task: SegmentationTask, trainer: lightning.Trainer, batch: SliceTensors, side: int
) -> str | None:
    try:
        rehearsal(task.segmenter.network, trainer, batch[0], side, compiled=True)()
    except TorchDynamoException as error:  # of the compiler; what the network says goes on
        return str(error).partition("\n")[0]
    return None
