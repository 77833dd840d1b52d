"""Training of one recipe with Lightning: loaders, trainer and its callbacks."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from components.shared.errors import UserError
from components.shared.machine import usable_cores
from components.shared.scoring.segmenter import pick_device
from components.train.callbacks.checkpoints import KeepCheckpoints
from components.train.callbacks.finite import StopAtNonFiniteLoss
from components.train.callbacks.history import Epoch, EpochListener, History, TellEpochs
from components.train.callbacks.interruption import StoreWithinEpochs
from components.train.callbacks.progress import LogProgress
from components.train.callbacks.threads import ChooseThreads
from components.train.checkpoints import Checkpoints
from components.train.network import VolumeSegmenter, freeze_unused
from components.train.processes import trainer_arguments
from components.train.recipe import Compute, Recipe, Sampling
from components.train.slices import PreparedVolume, SliceDataset, TumourSampler
from components.train.task import PreparedTensors, SegmentationTask

logger = logging.getLogger(__name__)

# of Lightning's lines only warnings are of use: LogProgress tells the progress. Not in
# shared/process.py: Lightning sets its level itself when it is imported
for name in ("lightning.pytorch", "pytorch_lightning"):  # it logs under both
    logging.getLogger(name).setLevel(logging.WARNING)


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
    further_callbacks: Sequence[Callback] = (),
) -> Fit:
    """Trains a segmenter, from the last checkpoint where there is one.

    Under `torchrun` all its processes train together; the first one writes.

    Args:
        recipe: How to train.
        segmenter: With initial weights; changed in place.
        train: Volumes to learn from.
        validation: Volumes that choose the best epoch.
        checkpoints: Where the state is kept between attempts.
        listen: Called after every validated epoch, in the process that writes.
        further_callbacks: Of Lightning, e.g. its `EMAWeightAveraging`.

    Raises:
        UserError: If the device is missing, no training slice has tumour, or the loss
            stops being a number.
    """
    history = History()
    callbacks = [
        ChooseThreads(segmenter.network, recipe.compute.threads),
        *_callbacks(history, checkpoints, listen),
        *further_callbacks,
        StoreWithinEpochs(checkpoints, history),
    ]
    trainer = _trainer(
        recipe.compute,
        callbacks,
        {
            "max_epochs": recipe.schedule.epochs,
            "check_val_every_n_epoch": recipe.schedule.validation_interval,
        },
    )
    trainer.fit(
        _task(recipe, segmenter, trainer),
        _training_loader(
            SliceDataset(train, recipe.network.context_slices),
            recipe.sampling,
            recipe.compute,
            seed=recipe.seed,
            rank=trainer.global_rank,
            ranks=trainer.world_size,
        ),
        DataLoader(_WholeVolumes(validation), batch_size=None),
        ckpt_path=checkpoints.last(),
        weights_only=True,
    )
    checkpoints.load_best(segmenter.network)
    return Fit(segmenter.cpu().eval(), tuple(history.epochs))


def rehearse(
    recipe: Recipe,
    segmenter: VolumeSegmenter,
    train: Sequence[PreparedVolume],
    callback: Callback,
    *,
    steps: int,
) -> None:
    """Trains for some steps, over as many epochs as they take; validates and stores nothing.

    Args:
        recipe: How to train; its schedule counts the steps as the whole training.
        segmenter: Changed in place.
        train: Volumes to learn from.
        callback: Watches, or steers.
        steps: Most that are done.

    Raises:
        UserError: If the device is missing or no training slice has tumour.
    """
    callbacks = [ChooseThreads(segmenter.network, recipe.compute.threads), callback]
    length = {"max_epochs": -1, "max_steps": steps}
    trainer = _trainer(recipe.compute, callbacks, length)
    trainer.fit(
        _task(recipe, segmenter, trainer),
        _training_loader(
            SliceDataset(train, recipe.network.context_slices),
            recipe.sampling,
            recipe.compute,
            seed=recipe.seed,
            rank=trainer.global_rank,
            ranks=trainer.world_size,
        ),
    )


def _task(
    recipe: Recipe, segmenter: VolumeSegmenter, trainer: lightning.Trainer
) -> SegmentationTask:
    if trainer.world_size > 1:
        freeze_unused(segmenter)
    return SegmentationTask(
        segmenter.to(memory_format=torch.channels_last),
        augmentation=recipe.augmentation,
        optimiser=recipe.optimiser,
        seed=recipe.seed,
    )


def _callbacks(history: History, checkpoints: Checkpoints, listen: EpochListener) -> list[Callback]:
    """In the order in which they act on an epoch: measured, told in the log, stored, told on."""
    return [
        StopAtNonFiniteLoss(),
        history,
        LogProgress(history),
        KeepCheckpoints(checkpoints, history),
        TellEpochs(history, listen),
    ]


def _trainer(
    compute: Compute, callbacks: list[Callback], length: dict[str, Any]
) -> lightning.Trainer:
    # on a machine with few cores reading in the training process is the faster way
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    # Lightning 2.6 asks in a way that torch is to drop
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
    # a rehearsal validates nothing
    warnings.filterwarnings("ignore", ".*have no `val_dataloader`.*")
    # validation is of the process that writes, see SegmentationTask
    warnings.filterwarnings("ignore", ".*recommended to use `self.log.*sync_dist=True.*")
    # StoreWithinEpochs says to TumourSampler where to go on
    warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")
    return lightning.Trainer(
        **trainer_arguments(),
        **length,
        accelerator="gpu" if pick_device(compute.device) == "cuda" else "cpu",
        precision=compute.precision,
        callbacks=callbacks,
        use_distributed_sampler=False,  # TumourSampler deals the slices out itself
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,  # LogProgress tells the progress, in lines
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def _training_loader(
    slices: SliceDataset, sampling: Sampling, compute: Compute, *, seed: int, rank: int, ranks: int
) -> DataLoader[tuple[Tensor, Tensor]]:
    if not slices.has_tumour.any():
        raise UserError("no slice of the training part has tumour; nothing can be learned")
    sampler = TumourSampler(
        slices.has_tumour,
        tumour_share=sampling.tumour_share,
        seed=seed,
        rank=rank,
        ranks=ranks,
    )
    workers = _loader_workers(compute.loader_workers)
    return _LateLoader(
        slices,
        batch_size=min(sampling.batch_size, len(sampler)),
        sampler=sampler,
        drop_last=True,  # batch normalisation dislikes a last batch of one
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pick_device(compute.device) == "cuda",
    )


def _loader_workers(asked: int) -> int:
    cores = usable_cores()
    if asked > cores:
        logger.warning("train.compute.loader_workers=%d, CPU cores: %d; as many read", asked, cores)
    return min(asked, cores)


class _LateLoader(DataLoader[tuple[Tensor, Tensor]]):
    """Begins to read when the first batch is asked for.

    Lightning makes the iterator before it knows where a resumed training stands, and processes
    that read ahead would begin with the first slices of the first epoch.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch names a private class
        yield from super().__iter__()


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
