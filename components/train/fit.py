"""Fitting one recipe with Lightning: loaders, trainer and callbacks."""

import copy
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from components.shared.errors import UserError
from components.shared.machine import usable_cores
from components.shared.model.network import VolumeSegmenter, freeze_unused
from components.shared.model.segmenter import pick_device
from components.train.callbacks.checkpoints import KeepCheckpoints
from components.train.callbacks.history import Epoch, History
from components.train.callbacks.interruption import EndOnSignal
from components.train.callbacks.nan_guard import NanGuard, advice_against
from components.train.callbacks.progress import EpochListener, ReportProgress
from components.train.callbacks.threads import ChooseThreads
from components.train.callbacks.weight_averaging import AverageWeights
from components.train.callbacks.weight_sync import SyncWeights
from components.train.checkpoints import Checkpoints
from components.train.data.slices import (
    PreparedVolume,
    SliceDataset,
    SliceTensors,
    TumourSampler,
)
from components.train.distributed.batch_norm import with_sync_batch_norm
from components.train.distributed.processes import trainer_arguments
from components.train.memory import keep_freed_memory, within_memory
from components.train.precision import pick_precision
from components.train.recipe import Recipe, Sampling
from components.train.task import SegmentationTask

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fit:
    """A finished training run of one network.

    Attributes:
        segmenter: Segmenter with the weights that the recipe exports, in eval mode, on the CPU.
        history: One entry per validated epoch.
        exported: Number of the epoch with these weights; `None` without epochs.
    """

    segmenter: VolumeSegmenter
    history: tuple[Epoch, ...]
    exported: int | None


def fit(
    recipe: Recipe,
    segmenter: VolumeSegmenter,
    train: Sequence[PreparedVolume],
    validation: Sequence[PreparedVolume],
    checkpoints: Checkpoints,
    listen: EpochListener,
    further_callbacks: Sequence[Callback] = (),
) -> Fit:
    """Fits one recipe, resuming from the last checkpoint.

    Several processes train together; the first one writes, and calls `listen` after every epoch.
    If memory runs out, they continue once with micro-batches of half the size, see `within_memory`.
    The segmenter is changed in place.

    Raises:
        UserError: If the device is missing, no training slice has tumour, the batch cannot be
            divided, memory runs out, or the loss becomes NaN or infinite.
    """
    slices = SliceDataset(train, recipe.network.context_slices)
    initial = copy.deepcopy(segmenter.state_dict())

    def attempt(sampling: Sampling) -> Fit:
        segmenter.load_state_dict(initial)
        used = recipe.model_copy(update={"sampling": sampling})
        return _fit(used, segmenter, slices, validation, checkpoints, listen, further_callbacks)

    return within_memory(attempt, recipe.sampling, checkpoints)


def _fit(
    recipe: Recipe,
    segmenter: VolumeSegmenter,
    slices: SliceDataset,
    validation: Sequence[PreparedVolume],
    checkpoints: Checkpoints,
    listen: EpochListener,
    further_callbacks: Sequence[Callback],
) -> Fit:
    history = History(recipe.schedule)
    device, decay = pick_device(recipe.compute.device), recipe.optimizer.ema_decay
    averaging = [AverageWeights(decay, device)] if decay else []
    callbacks = [
        SyncWeights(),
        NanGuard(slices.volume_of, advice_against(recipe)),
        # in the order of their work: measure, store, report
        history,
        KeepCheckpoints(checkpoints, history),
        ReportProgress(recipe, history, listen),
        *averaging,
        *further_callbacks,
        EndOnSignal(),
    ]
    _run(recipe, segmenter, slices, callbacks, validation, checkpoints.last())
    checkpoints.load_best(segmenter.network)
    return Fit(segmenter.cpu().eval(), tuple(history.epochs), history.kept)


def rehearse(
    recipe: Recipe,
    segmenter: VolumeSegmenter,
    train: Sequence[PreparedVolume],
    callback: Callback,
) -> None:
    """Trains without validation until the schedule or the callback stops it; stores nothing.

    The segmenter is changed in place, and its weights are not averaged. Errors are those of `fit`.
    """
    slices = SliceDataset(train, recipe.network.context_slices)
    _run(recipe, segmenter, slices, [callback])


def _run(
    recipe: Recipe,
    segmenter: VolumeSegmenter,
    slices: SliceDataset,
    callbacks: Sequence[Callback],
    volumes: Sequence[PreparedVolume] = (),
    state: Path | None = None,
) -> None:
    threads = ChooseThreads(segmenter.network, recipe.compute, recipe.image_size_at)
    trainer = _trainer(recipe, [threads, *callbacks])
    place = {"rank": trainer.global_rank, "ranks": trainer.world_size}
    loader = _training_loader(slices, recipe, **place)
    validation: DataLoader[Any] | None = None
    if volumes:
        own: Any = deal_out(volumes, **place)  # torch accepts any sequence
        validation = DataLoader(own, batch_size=None)
    task = _task(recipe, segmenter, trainer, loader)
    trainer.fit(task, loader, validation, ckpt_path=state, weights_only=True)


def _task(
    recipe: Recipe,
    segmenter: VolumeSegmenter,
    trainer: lightning.Trainer,
    loader: DataLoader[SliceTensors],
) -> SegmentationTask:
    assert loader.batch_size
    if trainer.world_size > 1:
        freeze_unused(segmenter)
        if pick_device(recipe.compute.device) == "cuda":
            segmenter = with_sync_batch_norm(segmenter)
    return SegmentationTask(
        segmenter.to(memory_format=torch.channels_last),
        recipe,
        micro_batch=loader.batch_size,
    )


def deal_out(
    volumes: Sequence[PreparedVolume], *, rank: int, ranks: int
) -> Sequence[tuple[np.ndarray, ...] | None]:
    """Arrays of the volumes that a process validates; `None` fills up to an equal number.

    The last array is the volume's weight: one divided by the number of its patient's scans.
    """
    scans = Counter(volume.entry.patient for volume in volumes)
    arrays = [
        (one.images, one.box, one.masks, one.label_map, np.array(1 / scans[one.entry.patient]))
        for one in volumes
    ]
    return [*arrays, *[None] * (-len(arrays) % ranks)][rank::ranks]


def _trainer(recipe: Recipe, callbacks: list[Callback]) -> lightning.Trainer:
    # of Lightning's lines only warnings are of use: ReportProgress logs the progress. Here, as it
    # sets its level itself when it is imported, under its other name by MLflow
    for name in ("lightning.pytorch", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # on a machine with few cores reading in the training process is faster
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    # Lightning 2.6 uses an interface of torch that is deprecated
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
    # a rehearsal validates nothing
    warnings.filterwarnings("ignore", ".*have no `val_dataloader`.*")
    # SegmentationTask sums over the processes before it logs
    warnings.filterwarnings("ignore", ".*recommended to use `self.log.*sync_dist=True.*")
    keep_freed_memory()
    precision = pick_precision(recipe.compute)
    logger.info("computing in %s", precision)
    return lightning.Trainer(
        **trainer_arguments(),
        accelerator="gpu" if pick_device(recipe.compute.device) == "cuda" else "cpu",
        precision=precision,
        deterministic=recipe.compute.deterministic,
        max_epochs=recipe.schedule.epochs,
        accumulate_grad_batches=recipe.sampling.accumulate,
        gradient_clip_val=recipe.optimizer.gradient_clip,
        callbacks=callbacks,
        use_distributed_sampler=False,  # TumourSampler splits the slices itself
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,  # ReportProgress logs lines
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def _training_loader(
    slices: SliceDataset, recipe: Recipe, *, rank: int, ranks: int
) -> DataLoader[SliceTensors]:
    sampling = recipe.sampling
    if not slices.has_tumour.any():
        raise UserError("no slice of the training part has tumour; nothing can be learned")
    sampler = TumourSampler(
        slices.has_tumour,
        foreground_fraction=sampling.foreground_fraction,
        seed=recipe.seed,
        carvemix_prob=lambda epoch: recipe.augmentation_at(epoch).carvemix_prob,
        rank=rank,
        ranks=ranks,
    )
    workers = _loader_workers(recipe.compute.loader_workers)
    return _WholeSteps(
        slices,
        batch_size=_micro_batch(sampling, ranks, drawn=len(sampler) * ranks),
        accumulate=sampling.accumulate,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pick_device(recipe.compute.device) == "cuda",
    )


def _micro_batch(sampling: Sampling, ranks: int, *, drawn: int) -> int:
    """Slices of a process's micro-batch; fewer than set if an epoch has fewer."""
    parts, least = ranks * sampling.accumulate, max(ranks, 2) * sampling.accumulate
    if sampling.batch_size % parts or sampling.batch_size < least:
        raise UserError(
            f"train.sampling.batch_size={sampling.batch_size} cannot be divided: {ranks} "
            f"processes with train.sampling.accumulate={sampling.accumulate} need a multiple of "
            f"{parts}, at least {least}"
        )
    if drawn < least:
        raise UserError(f"an epoch has {drawn} slices; a step of this recipe needs {least}")
    return min(sampling.batch_size, drawn) // parts


def _loader_workers(asked: int) -> int:
    cores = usable_cores()
    if asked > cores:
        logger.warning("train.compute.loader_workers=%d is limited to %d CPU cores", asked, cores)
    return min(asked, cores)


class _WholeSteps(DataLoader[SliceTensors]):
    """Micro-batches of complete optimizer steps, read from the first request on.

    Lightning creates the iterator before it has restored the epoch of a resumed run, so processes
    that read ahead would begin with the slices of the first epoch.
    """

    def __init__(self, slices: SliceDataset, *, accumulate: int, **options: Any) -> None:  # noqa: ANN401
        super().__init__(slices, drop_last=True, **options)
        self._accumulate = accumulate

    def __len__(self) -> int:
        return super().__len__() // self._accumulate * self._accumulate

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch names a private class
        yield from super().__iter__()
