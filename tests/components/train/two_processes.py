"""What each process of the training in `test_processes.py` runs, under `torchrun`."""

import hashlib
import json
import pickle
import sys
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import save_file

from components.train import finder
from components.train.checkpoints import Checkpoints
from components.train.fit import fit
from components.train.network import build_segmenter
from components.train.processes import is_writer, rank
from components.train.slices import prepare_volumes


class Record(Callback):
    """Keeps which slices came, with which seed they were changed, and the last weights."""

    def __init__(self):
        self.epochs = []
        self.seeds = []
        self.last = {}

    def on_train_epoch_start(self, trainer, pl_module):
        self.epochs.append([])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.epochs[-1] += [hashlib.sha256(image.numpy()).hexdigest() for image in batch[0]]
        self.seeds.append(torch.initial_seed())

    def on_train_end(self, trainer, pl_module):
        named = pl_module.segmenter.network.named_parameters()
        self.last = {name: value.detach().clone().contiguous() for name, value in named}


def main():
    folder = Path(sys.argv[1])
    recipe, dataset = pickle.loads((folder / "task.pickle").read_bytes())
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    segmenter = build_segmenter(recipe.network)
    record, told = Record(), []
    train = prepare_volumes(dataset, "train", segmenter)
    finder.STEPS = 12
    search = finder.search_once(
        dataset.store, "two", lambda: finder.search_learning_rate(recipe, segmenter, train)
    )
    fitted = fit(
        recipe,
        segmenter,
        train,
        prepare_volumes(dataset, "validation", segmenter),
        Checkpoints(dataset.store, "two", folder / "work"),
        told.append,
        [record],
    )
    weights = hashlib.sha256()
    for value in fitted.segmenter.state_dict().values():
        weights.update(value.contiguous().numpy())
    result = {
        "writes": is_writer(),
        "search": search.model_dump(),
        "epochs": record.epochs,
        "seeds": record.seeds,
        "told": [epoch["epoch"] for epoch in told],
        "weights": weights.hexdigest(),
        "files": sorted(path.name for path in (folder / "work" / "two").glob(f"rank-{rank()}/*")),
    }
    save_file(record.last, folder / f"rank-{rank()}.safetensors")
    (folder / f"rank-{rank()}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
