"""What one training step and one validation do, apart from how long and on what."""

import contextlib
from collections.abc import Callable

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn import functional

from components.train.augment import Rows, augment
from components.train.batch_norm import SynchronisedBatchNorm
from components.train.network import VolumeSegmenter, with_neighbours
from components.train.processes import sum_over_processes
from components.train.recipe import Augmentation, Optimiser
from components.train.slices import COVERAGE_LEVELS, SliceTensors

PreparedTensors = tuple[Tensor, Tensor, Tensor, Tensor]  # the arrays of a `PreparedVolume`

_VALIDATION_BATCH = 32  # slices at once when a whole volume is predicted
_STREAM_STRIDE = 2_654_435_761  # 2**32 / golden ratio: far apart also in the low 32 bits
_TINY = 1e-7


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
        self._measured = torch.zeros(3)

    def training_step(self, batch: SliceTensors, index: int) -> Tensor:
        images, masks, _ = batch
        micro_batch = index % self.trainer.accumulate_grad_batches
        images, masks = self._augment(images.float(), masks, micro_batch)
        self._seed_step(1 + micro_batch * self.trainer.world_size + self.global_rank)  # dropout
        alone = self.trainer.world_size == 1
        with contextlib.nullcontext() if alone else SynchronisedBatchNorm():
            logits = self.segmenter.network(images.contiguous(memory_format=torch.channels_last))
        return _loss(logits.float(), masks, sum_over_processes)

    def on_validation_epoch_start(self) -> None:
        self._measured = torch.zeros(3, dtype=torch.float64, device=self.device)

    def validation_step(self, volume: PreparedTensors | None, _index: int) -> None:
        if volume is None:  # other processes have one volume more
            return
        images, box, masks, truth = volume
        logits = self._predict(images)
        predicted = self.segmenter.restore(logits, box, truth.shape[1], truth.shape[2]) >= 0.5
        dice = _dice(predicted, truth.bool())
        loss = _loss(logits, masks[:, None].float() / COVERAGE_LEVELS)
        self._measured += torch.stack([dice, loss, torch.ones_like(loss)])

    def on_validation_epoch_end(self) -> None:
        """Logs the means over the volumes of all processes, each of which had its own."""
        dice, loss, volumes = sum_over_processes(self._measured)
        self.log("validation_dice", dice / volumes)
        self.log("validation_loss", loss / volumes)

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

    def _augment(self, images: Tensor, masks: Tensor, micro_batch: int) -> tuple[Tensor, Tensor]:
        """Changes the slices as they would be if one process took the whole step at once."""
        processes = self.trainer.world_size
        slices = len(images) * processes  # those of one process are dealt, see TumourSampler
        first = micro_batch * slices
        rows = Rows(
            slice(first + self.global_rank, first + slices, processes),
            slices * self.trainer.accumulate_grad_batches,
            images.device,
        )
        self._seed_step(0)
        return augment(images, masks, self._augmentation, rows)

    def _seed_step(self, stream: int) -> None:
        torch.manual_seed(step_seed(self._seed, self.global_step, stream))

    def _predict(self, images: Tensor) -> Tensor:
        stacked = with_neighbours(images.float(), self.segmenter.context_slices)
        parts = [
            self.segmenter.network(part.contiguous(memory_format=torch.channels_last)).float()
            for part in torch.split(stacked, _VALIDATION_BATCH)
        ]
        return torch.cat(parts)


def step_seed(seed: int, step: int, stream: int) -> int:
    """The seed of a step's chance.

    It depends on nothing that happened before, so a resumed training repeats what it would
    have done; and no two streams of a training are the same. Stream 0 is of what all processes
    draw together, the others are of each one's micro-batches.
    """
    return seed * 1_000_003 + step + stream * _STREAM_STRIDE


def _loss(
    logits: Tensor, masks: Tensor, add_up: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Cross-entropy, and soft Dice over all slices together.

    Args:
        logits: slices x 1 x side x side.
        masks: Share of tumour in 0..1, of the same shape.
        add_up: Adds sums over the slices up with those of other processes.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, masks)
    probability = torch.sigmoid(logits)
    sums = torch.stack([(probability - masks).abs().sum(), probability.sum(), masks.sum()])
    difference, predicted, true = add_up(sums) if add_up else sums
    dice_loss: Tensor = difference / (predicted + true).clamp(min=_TINY) * (true > 0)
    loss: Tensor = entropy + dice_loss
    return loss


def _dice(predicted: Tensor, truth: Tensor) -> Tensor:
    total = predicted.sum() + truth.sum()
    if total == 0:
        return torch.ones((), device=truth.device)
    return 2 * (predicted & truth).sum() / total
