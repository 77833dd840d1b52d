"""What one training step and one validation do, apart from how long and on what."""

import lightning
import segmentation_models_pytorch as smp
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn import functional

from components.train.augment import augment
from components.train.network import VolumeSegmenter, with_neighbours
from components.train.recipe import Augmentation, Optimiser
from components.train.slices import COVERAGE_LEVELS, SliceTensors

PreparedTensors = tuple[Tensor, Tensor, Tensor, Tensor]  # the arrays of a `PreparedVolume`

_VALIDATION_BATCH = 32  # slices at once when a whole volume is predicted
_RANK_STRIDE = 2_654_435_761  # 2**32 / golden ratio: ranks are far apart also in the low 32 bits


class SegmentationTask(lightning.LightningModule):
    """Loss, optimiser and validation.

    Args:
        segmenter: Its network is trained.
        augmentation: Sizes of the random changes.
        optimiser: Peak learning rate and weight decay.
        seed: Of the augmentation.
    """

    def __init__(
        self,
        segmenter: VolumeSegmenter,
        *,
        augmentation: Augmentation,
        optimiser: Optimiser,
        seed: int,
    ) -> None:
        super().__init__()
        self.segmenter = segmenter
        self._augmentation = augmentation
        self._optimiser = optimiser
        self._seed = seed
        self._dice_loss = smp.losses.DiceLoss(mode="binary", from_logits=True)

    def training_step(self, batch: SliceTensors, _index: int) -> Tensor:
        torch.manual_seed(step_seed(self._seed, self.global_step, self.global_rank))
        images, masks = augment(batch[0].float(), batch[1], self._augmentation)
        logits = self.segmenter.network(images.contiguous(memory_format=torch.channels_last))
        return self._loss(logits.float(), masks)

    def validation_step(self, volume: PreparedTensors, _index: int) -> None:
        images, box, masks, truth = volume
        logits = self._predict(images)
        predicted = self.segmenter.restore(logits, box, truth.shape[1], truth.shape[2]) >= 0.5
        self._log_validation("validation_dice", _dice(predicted, truth.bool()))
        loss = self._loss(logits, masks[:, None].float() / COVERAGE_LEVELS)
        self._log_validation("validation_loss", loss)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = torch.optim.AdamW(
            self.parameters(),
            lr=self._optimiser.learning_rate,
            weight_decay=self._optimiser.weight_decay,
            fused=True,
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=self._optimiser.learning_rate,
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=0.2,
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _log_validation(self, name: str, value: Tensor) -> None:
        # no mean over the processes: each has its own running statistics of batch normalisation,
        # and the weights that are kept are those of the process that writes
        self.log(name, value, batch_size=1, on_epoch=True, sync_dist=False)

    def _predict(self, images: Tensor) -> Tensor:
        stacked = with_neighbours(images.float(), self.segmenter.context_slices)
        parts = [
            self.segmenter.network(part.contiguous(memory_format=torch.channels_last)).float()
            for part in torch.split(stacked, _VALIDATION_BATCH)
        ]
        return torch.cat(parts)

    def _loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        entropy = functional.binary_cross_entropy_with_logits(logits, masks)
        dice: Tensor = self._dice_loss(logits, masks)
        return entropy + dice


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of a step's chance.

    It depends on nothing that happened before, so a resumed training repeats what it would
    have done; and no two processes of a training draw the same.
    """
    return seed * 1_000_003 + step + rank * _RANK_STRIDE


def _dice(predicted: Tensor, truth: Tensor) -> Tensor:
    total = predicted.sum() + truth.sum()
    if total == 0:
        return torch.ones((), device=truth.device)
    return 2 * (predicted & truth).sum() / total
