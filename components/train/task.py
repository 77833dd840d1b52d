"""LightningModule: training step, validation step, optimizer."""

from collections.abc import Iterator

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from components.shared.dataset.volumes import target_masks
from components.shared.model.network import VolumeSegmenter, with_neighbours
from components.shared.scoring.decision import find_tumour
from components.train.data.augment import Rows, augment
from components.train.data.slices import COVERAGE_LEVELS, SliceTensors
from components.train.distributed.batch_norm import batch_norm_over_processes
from components.train.distributed.processes import sum_over_processes
from components.train.optimization.learning_rates import FollowPoints, learning_rates
from components.train.optimization.losses import BatchLoss
from components.train.optimization.optimizers import build_optimizer
from components.train.recipe import Recipe

# images, box, masks, label map, and the volume's weight in means over patients
PreparedTensors = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]

_VALIDATION_BATCH = 32  # slices at once, at most, when a whole volume is predicted
_STREAM_STRIDE = 2_654_435_761  # 2**32 / golden ratio: far apart also in the low 32 bits


class SegmentationTask(lightning.LightningModule):
    """Training step, validation step, loss and optimizer.

    Args:
        segmenter: Segmenter whose network is trained.
        recipe: Recipe.
        micro_batch: Slices that a training step has in memory at once.
    """

    def __init__(self, segmenter: VolumeSegmenter, recipe: Recipe, *, micro_batch: int) -> None:
        super().__init__()
        self.segmenter = segmenter
        self._recipe = recipe
        self._optimizer = recipe.optimizer
        self._loss = BatchLoss(recipe.optimizer.loss)
        self._schedule = recipe.schedule
        self._validation_batch = min(micro_batch, _VALIDATION_BATCH)
        self._measured = torch.zeros(0)

    def training_step(self, batch: SliceTensors, index: int) -> Tensor:
        images, masks, _ = batch
        micro_batch = index % self.trainer.accumulate_grad_batches
        phase = self._schedule.phase_at(self.current_epoch)
        self._freeze(phase.freeze_encoder)
        images, masks = _resized(images.float(), masks, phase.image_size)
        images, masks = self._augment(images, masks, micro_batch)
        self._seed_step(1 + micro_batch * self.trainer.world_size + self.global_rank)  # dropout
        with batch_norm_over_processes(self.device):
            logits: Tensor = self.segmenter.network(
                images.contiguous(memory_format=torch.channels_last)
            )
        loss: Tensor = self._loss(logits.float(), masks, sum_over_processes)
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Keeps a frozen encoder's weights, except batch normalization, as in fastai."""
        del optimizer
        if self._schedule.phase_at(self.current_epoch).freeze_encoder:
            for weight in _convolutions(self._encoder):
                weight.grad = None

    def on_validation_epoch_start(self) -> None:
        figures = len(self.segmenter.targets) + 2  # Dice of each, loss, number of patients
        self._measured = torch.zeros(figures, dtype=torch.float64, device=self.device)

    def validation_step(self, volume: PreparedTensors | None, _index: int) -> None:
        if volume is None:  # other processes have one more volume
            return
        images, box, masks, label_map, weight = volume
        logits = self._predict(images)
        dice = self._dice(logits, box, label_map)
        loss = self._loss(logits, masks.float() / COVERAGE_LEVELS)
        self._measured += weight * torch.stack([*dice, loss, torch.ones_like(loss)])

    def on_validation_epoch_end(self) -> None:
        """Logs the means over the patients of all processes.

        `validation_dice` is the mean over the targets; of several, each has its own too.
        """
        *measured, patients = sum_over_processes(self._measured)
        *dice, loss = torch.stack(measured) / patients
        self.log("validation_loss", loss)
        self.log("validation_dice", torch.stack(dice).mean())
        for target, value in zip(self.segmenter.targets, dice, strict=True):
            if len(dice) > 1:
                self.log(f"{target.name}/validation_dice", value)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        encoder = list(self._encoder.parameters())
        known = {id(weight) for weight in encoder}
        rest = [weight for weight in self.parameters() if id(weight) not in known]
        optimizer = build_optimizer(self._optimizer, rest, encoder)
        steps = int(self.trainer.estimated_stepping_batches)
        points = learning_rates(self._schedule, self._optimizer, steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": FollowPoints(optimizer, points), "interval": "step"},
        }

    @property
    def _encoder(self) -> nn.Module:
        # a network of the user's need not have one
        encoder = getattr(self.segmenter.network, "encoder", nn.Module())
        assert isinstance(encoder, nn.Module)
        return encoder

    def _freeze(self, frozen: bool) -> None:
        """Saves the computation of gradients that `on_before_optimizer_step` would drop."""
        if self.trainer.world_size == 1:  # DDP expects the same ones always
            for weight in _convolutions(self._encoder):
                weight.requires_grad_(not frozen)

    def _augment(self, images: Tensor, masks: Tensor, micro_batch: int) -> tuple[Tensor, Tensor]:
        """Augments the slices as if one process had the whole step at once."""
        processes = self.trainer.world_size
        slices = len(images) * processes  # split as by TumourSampler
        first = micro_batch * slices
        rows = Rows(
            slice(first + self.global_rank, first + slices, processes),
            slices * self.trainer.accumulate_grad_batches,
            images.device,
        )
        self._seed_step(0)
        settings = self._recipe.augmentation_at(self.current_epoch)
        return augment(images, masks, settings, rows, self.segmenter.channels)

    def _seed_step(self, stream: int) -> None:
        torch.manual_seed(step_seed(self._recipe.seed, self.global_step, stream))

    def _predict(self, images: Tensor) -> Tensor:
        stacked = with_neighbours(images.float(), self.segmenter.context_slices)
        parts = [
            self.segmenter.answer(part.contiguous(memory_format=torch.channels_last)).float()
            for part in torch.split(stacked, self._validation_batch)
        ]
        return torch.cat(parts)

    def _dice(self, logits: Tensor, box: Tensor, label_map: Tensor) -> list[Tensor]:
        """Returns the Dice of each target in the whole volume."""
        height, width = label_map.shape[1:]
        probability = self.segmenter.restore(logits, box, height, width).transpose(0, 1)
        truth = target_masks(label_map.cpu().numpy(), self.segmenter.targets)
        return [
            _dice(self._decide(one), torch.from_numpy(mask).to(one.device))
            for one, mask in zip(probability, truth, strict=True)
        ]

    def _decide(self, probability: Tensor) -> Tensor:
        mask = find_tumour(probability.cpu().numpy(), 0.5, self.segmenter.min_component_fraction)
        return torch.from_numpy(mask).to(probability.device)


def _convolutions(encoder: nn.Module) -> Iterator[nn.Parameter]:
    """All weights except those of batch normalization."""
    for module in encoder.modules():
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            yield from module.parameters(recurse=False)


def _resized(images: Tensor, masks: Tensor, side: int | None) -> tuple[Tensor, Tensor]:
    if side is None or side == images.shape[-1]:
        return images, masks
    smaller = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
    return smaller, functional.interpolate(masks, (side, side), mode="bilinear", antialias=True)


def step_seed(seed: int, step: int, stream: int) -> int:
    """Seed of a step's random numbers.

    It depends on nothing that happened before, so a resumed run repeats an uninterrupted one, and
    no two streams of a run are equal. Stream 0 is for numbers that all processes draw together;
    the others are for each process's micro-batches.
    """
    return seed * 1_000_003 + step + stream * _STREAM_STRIDE


def _dice(predicted: Tensor, truth: Tensor) -> Tensor:
    total = predicted.sum() + truth.sum()
    if total == 0:
        return torch.ones((), device=truth.device)
    return 2 * (predicted & truth).sum() / total
