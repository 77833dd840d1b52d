"""Equal weights in all processes of a training run."""

import lightning
from lightning.pytorch.callbacks import Callback
from torch import distributed


class SyncWeights(Callback):
    """Broadcasts the weights of the first process before each epoch.

    Each process does the optimizer's step by itself from the same gradient. On CPUs of different
    kinds, or with different numbers of threads, the last bits of Muon's result differ.
    """

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Broadcasts them."""
        if trainer.world_size > 1:
            for parameter in pl_module.parameters():
                distributed.broadcast(parameter.data, src=0)
