"""Processes that train together keep one set of weights."""

import lightning
from lightning.pytorch.callbacks import Callback
from torch import distributed


class ShareWeights(Callback):
    """Gives all processes the weights of the first one before each epoch.

    Each does the optimizer's step by itself from the same gradient. On CPUs of different kinds,
    or with different numbers of threads, the last bits of what Muon makes of it are different.
    """

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Shares them."""
        if trainer.world_size > 1:
            for parameter in pl_module.parameters():
                distributed.broadcast(parameter.data, src=0)
