"""Training of one recipe with Lightning."""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import lightning
import segmentation_models_pytorch as smp
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from components.shared.errors import UserError
from components.shared.machine import usable_cores
from components.shared.scoring.segmenter import pick_device
from components.train.augment import augment
from components.train.callbacks.threads import ChooseThreads
from components.train.checkpoints import Checkpoints, Epoch, EpochListener, KeepCheckpoints
from components.train.network import VolumeSegmenter, with_neighbours
from components.train.recipe import Recipe
from components.train.slices import (
    COVERAGE_LEVELS,
    PreparedVolume,
    SliceDataset,
    TumourSampler,
)

logger = logging.getLogger(__name__)

PreparedTensors = tuple[Tensor, Tensor, Tensor, Tensor]  # the arrays of a `PreparedVolume`

# of Lightning's lines only warnings are of use: KeepCheckpoints tells the progress
for name in ("lightning.pytorch", "pytorch_lightning"):  # it logs under both
    logging.getLogger(name).setLevel(logging.WARNING)

_VALIDATION_BATCH = 32  # slices at once when a whole volume is predicted


@dataclass(frozen=True)
class Fit:
    """A finished training.

    Attributes:
        segmenter: With the weights of the best epoch, in eval mode, on the CPU.
        history: One entry a validated epoch.
    """

    segmenter: VolumeSegmenter
    history: tuple[Epoch, ...]


def fit(
    recipe: Recipe,
    segmenter: VolumeSegmenter,
    train: Sequence[PreparedVolume],
    validation: Sequence[PreparedVolume],
    checkpoints: Checkpoints,
    listen: EpochListener,
) -> Fit:
    """Trains a segmenter, from the last checkpoint where there is one.

    Args:
        recipe: How to train.
        segmenter: With initial weights; changed in place.
        train: Volumes to learn from.
        validation: Volumes that choose the best epoch.
        checkpoints: Where the state is kept between attempts.
        listen: Called after every validated epoch.

    Raises:
        UserError: If the device is missing, no training slice has tumour, or the loss
            stops being a number.
    """
    training = Training(segmenter.to(memory_format=torch.channels_last), recipe)
    keeper = KeepCheckpoints(checkpoints, segmenter.network, recipe.epochs, listen)
    threads = ChooseThreads(segmenter.network, recipe.threads)
    trainer = _trainer(recipe, [keeper, threads])
    trainer.fit(
        training,
        _training_loader(train, recipe),
        DataLoader(_WholeVolumes(validation), batch_size=None),
        ckpt_path=checkpoints.last(),
        weights_only=True,
    )
    checkpoints.load_best(segmenter.network)
    return Fit(segmenter.cpu().eval(), tuple(keeper.history))


def _trainer(recipe: Recipe, callbacks: list[Callback]) -> lightning.Trainer:
    # on a machine with few cores reading in the training process is the faster way
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    return lightning.Trainer(
        accelerator="gpu" if pick_device(recipe.device) == "cuda" else "cpu",
        devices=1,
        precision=recipe.precision,
        max_epochs=recipe.epochs,
        check_val_every_n_epoch=recipe.validation_interval,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,  # KeepCheckpoints tells the progress, in lines
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def _training_loader(
    volumes: Sequence[PreparedVolume], recipe: Recipe
) -> DataLoader[tuple[Tensor, Tensor]]:
    slices = SliceDataset(volumes, recipe.context_slices)
    if not slices.has_tumour.any():
        raise UserError("no slice of the training part has tumour; nothing can be learned")
    sampler = TumourSampler(slices.has_tumour, recipe.tumour_share, recipe.seed)
    workers = _loader_workers(recipe.loader_workers)
    return DataLoader(
        slices,
        batch_size=min(recipe.batch_size, len(sampler)),
        sampler=sampler,
        drop_last=True,  # batch normalisation dislikes a last batch of one
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pick_device(recipe.device) == "cuda",
    )


def _loader_workers(asked: int) -> int:
    cores = usable_cores()
    if asked > cores:
        logger.warning("train.loader_workers=%d, CPU cores: %d; as many read", asked, cores)
    return min(asked, cores)


class _WholeVolumes(Dataset[PreparedTensors]):
    def __init__(self, volumes: Sequence[PreparedVolume]) -> None:
        self._volumes = volumes

    def __len__(self) -> int:
        return len(self._volumes)

    def __getitem__(self, index: int) -> PreparedTensors:
        volume = self._volumes[index]
        images, box, masks, truth = (
            torch.from_numpy(array)
            for array in (volume.images, volume.box, volume.masks, volume.truth)
        )
        return images, box, masks, truth


class Training(lightning.LightningModule):
    """Loss, optimiser and validation of a recipe."""

    def __init__(self, segmenter: VolumeSegmenter, recipe: Recipe) -> None:
        super().__init__()
        self.segmenter = segmenter
        self._recipe = recipe
        self._dice_loss = smp.losses.DiceLoss(mode="binary", from_logits=True)

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        del batch, batch_idx
        assert isinstance(outputs, dict)
        if not torch.isfinite(outputs["loss"]):
            raise UserError(
                f"the loss became {float(outputs['loss'])} in epoch {self.current_epoch}; lower "
                "train.learning_rate, or use train.precision=32-true"
            )

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        # chance depends on the step alone, so a resumed training repeats what it would have done
        torch.manual_seed(self._recipe.seed * 1_000_003 + self.global_step)
        images, masks = augment(batch[0].float(), batch[1], self._recipe)
        logits = self.segmenter.network(images.contiguous(memory_format=torch.channels_last))
        loss = self._loss(logits.float(), masks)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(images))
        return loss

    def validation_step(self, volume: PreparedTensors, _index: int) -> None:
        images, box, masks, truth = volume
        logits = self._predict(images)
        predicted = self.segmenter.restore(logits, box, truth.shape[1], truth.shape[2]) >= 0.5
        self.log("validation_dice", _dice(predicted, truth.bool()), batch_size=1, on_epoch=True)
        loss = self._loss(logits, masks[:, None].float() / COVERAGE_LEVELS)
        self.log("validation_loss", loss, batch_size=1, on_epoch=True)

    def _predict(self, images: Tensor) -> Tensor:
        stacked = with_neighbours(images.float(), self._recipe.context_slices)
        parts = [
            self.segmenter.network(part.contiguous(memory_format=torch.channels_last)).float()
            for part in torch.split(stacked, _VALIDATION_BATCH)
        ]
        return torch.cat(parts)

    def _loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        entropy = functional.binary_cross_entropy_with_logits(logits, masks)
        dice: Tensor = self._dice_loss(logits, masks)
        return entropy + dice

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = torch.optim.AdamW(
            self.parameters(),
            lr=self._recipe.learning_rate,
            weight_decay=self._recipe.weight_decay,
            fused=True,
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=self._recipe.learning_rate,
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=0.2,
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def _dice(predicted: Tensor, truth: Tensor) -> Tensor:
    total = predicted.sum() + truth.sum()
    if total == 0:
        return torch.ones((), device=truth.device)
    return 2 * (predicted & truth).sum() / total
