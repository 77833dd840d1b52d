"""What each process of the trainings in `test_processes.py` runs, under `torchrun`."""

import functools
import hashlib
import json
import os
import pickle
import signal
import sys
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import save_file

from components.shared.errors import UserError
from components.shared.model.network import build_segmenter
from components.train import finder
from components.train.checkpoints import Checkpoints
from components.train.data.slices import prepare_volumes
from components.train.distributed.processes import is_writer, rank
from components.train.fit import fit
from components.train.recipe import Sampling
from components.train.task import SegmentationTask


class Record(Callback):
    """Keeps which slices came, which volumes were validated, and the last weights."""

    def __init__(self):
        self.epochs = []
        self.validated = []
        self.last = {}

    def on_train_epoch_start(self, trainer, pl_module):
        self.epochs.append([])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.epochs[-1] += batch[2][:, 0].tolist()

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch is not None:
            self.validated.append(hashlib.sha256(batch[0].numpy()).hexdigest())

    def on_train_end(self, trainer, pl_module):
        state = pl_module.segmenter.network.state_dict()
        self.last = {name: value.detach().clone().contiguous() for name, value in state.items()}


class SignalInValidation(Callback):
    """Sends the second process SIGTERM in the second validation."""

    def __init__(self):
        self.started = 0

    def on_validation_start(self, trainer, pl_module):
        self.started += 1
        if rank() == 1 and self.started == 2:
            os.kill(os.getpid(), signal.SIGTERM)


class Part(Callback):
    """Changes the weights of the second process after its first step."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if rank() == 1 and trainer.global_step == 1:
            for weight in pl_module.parameters():
                weight.data.mul_(1.01)


class Training:
    """Trainings of one recipe on the small data set, for one of the processes."""

    def __init__(self, recipe, dataset, folder):
        self.recipe, self.dataset, self.folder = recipe, dataset, folder

    def run(self, name, *callbacks):
        torch.manual_seed(self.recipe.seed)
        segmenter = build_segmenter(self.recipe.network)
        record, reported = Record(), []
        fitted = fit(
            self.recipe,
            segmenter,
            prepare_volumes(self.dataset, "train", segmenter),
            prepare_volumes(self.dataset, "validation", segmenter),
            Checkpoints(self.dataset.store, name, self.folder / "work"),
            reported.append,
            [record, *callbacks],
        )
        save_file(record.last, self.folder / f"{name}-{rank()}.safetensors")
        weights = hashlib.sha256()
        for value in fitted.segmenter.state_dict().values():
            weights.update(value.contiguous().numpy())
        files = (self.folder / "work" / name).glob(f"rank-{rank()}/*")
        return {
            "epochs": record.epochs,
            "validated": record.validated,
            "history": fitted.history,
            "reported": [epoch["epoch"] for epoch in reported],
            "weights": weights.hexdigest(),
            "files": sorted(path.name for path in files),
        }


def _cut_in_validation(training):
    try:
        training.run("cut", SignalInValidation())
    except SystemExit as end:
        return {"status": end.code, **training.run("cut")}
    raise AssertionError("the training was not cut")


def _bad_loss(training):
    """Message about a NaN loss in the third step of the second process."""
    step = SegmentationTask.training_step

    def bad_step(self, batch, index):
        bad = rank() == 1 and self.global_step == 2
        return step(self, batch, index) * (float("nan") if bad else 1)

    SegmentationTask.training_step = bad_step
    try:
        training.run("bad")
    except UserError as error:
        return str(error)
    finally:
        SegmentationTask.training_step = step
    raise AssertionError("the training went on")


def _short_memory(training, name, ranks, *, halved=False):
    """How a training ends that lacks memory in its third step, in processes of some ranks."""
    step = SegmentationTask.training_step

    def short_step(self, batch, index):
        if rank() in ranks and self.global_step == 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return step(self, batch, index)

    SegmentationTask.training_step = short_step
    try:
        return _of_eight(training, name, halved=halved)
    except SystemExit as end:
        return end.code
    except (UserError, RuntimeError) as error:
        return str(error)
    finally:
        SegmentationTask.training_step = step


def _of_eight(training, name, *, halved):
    """A training whose steps can be halved, and are if the memory is marked as short."""
    if halved:
        store = training.dataset.store
        Checkpoints(store, name, training.folder / "before").mark_memory_short()
    recipe = training.recipe.model_copy(update={"sampling": Sampling(batch_size=8)})
    return Training(recipe, training.dataset, training.folder).run(name)


def _odd_batch(training):
    """Message about a batch that one process can split into two micro-batches, and two cannot."""
    odd = Sampling(batch_size=6, accumulate=2)
    recipe = training.recipe.model_copy(update={"sampling": odd})
    try:
        Training(recipe, training.dataset, training.folder).run("odd")
    except UserError as error:
        return str(error)
    raise AssertionError("the batch was taken")


def _search(training):
    """What a search before a training finds, in the store's folder of a training that began."""
    finder.STEPS = 12
    recipe, dataset = training.recipe, training.dataset
    torch.manual_seed(recipe.seed)
    segmenter = build_segmenter(recipe.network)
    volumes = prepare_volumes(dataset, "train", segmenter)
    look = functools.partial(finder.search_learning_rate, recipe, segmenter, volumes)
    return finder.search_once(dataset.store, "whole", look).model_dump()


def _torch_refusal():
    """What torch's own batch normalization over processes says of the CPU."""
    try:
        torch.nn.SyncBatchNorm(3)(torch.zeros(2, 3, 4, 4))
    except ValueError as error:
        return str(error)
    return ""


def main():
    folder = Path(sys.argv[1])
    recipe, accumulating, dataset = pickle.loads((folder / "task.pickle").read_bytes())
    torch.set_num_threads(1)
    training = Training(recipe, dataset, folder)
    result = {
        "writes": is_writer(),
        "search": _search(training),
        "whole": training.run("whole"),
        "accumulated": Training(accumulating, dataset, folder).run("accumulated"),
        "cut": _cut_in_validation(training),
        "odd": _odd_batch(training),
        "bad": _bad_loss(training),
        "parted": training.run("parted", Part()),
        "refusal": _torch_refusal(),
        "half": _of_eight(training, "half", halved=True),
        "shorter": _short_memory(training, "shorter", ranks=(0, 1), halved=True),
        "short": _short_memory(training, "short", ranks=(1,)),  # the last: one loses the other
    }
    (folder / f"rank-{rank()}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
