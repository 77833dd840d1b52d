"""What a warm start is worth when patients arrive: epochs to the same Dice.

    python -m tests.benchmarks.warm SOURCE FOLDER [--preset quick] [--first 57] [--seed 0]
        [--factors 0.1 1] [--epochs 12] [--threads 2] [--set STEP.KEY=VALUE ...]

A champion is trained on the first patients of a shuffled order. Then the others arrive, divided as
`retraining` does: each known patient keeps its part. The candidates are trained on all: from
scratch, and warm from the champion's last weights with the learning rate multiplied by each factor.
All have the same recipe and number of epochs; every epoch is scored on the test patients of the
larger split, which no training has seen. FOLDER gets a JSON file for each training, and one that is
there is not trained again. The table has the Dice after each epoch, and for each warm start the
first epoch that is at least as good as the last one from scratch.
"""

import argparse
import json
import random
import statistics
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback

from components.ingest.ingestion import ingest_source
from components.ingest.settings import IngestSettings
from components.shared.dataset.manifest import make_manifest
from components.shared.dataset.parts import SplitDataset
from components.shared.machine import usable_cores
from components.shared.model.network import build_segmenter
from components.shared.storage.store import open_store
from components.shared.threads import limit_threads
from components.split.settings import SplitSettings
from components.split.splitting import split_dataset
from components.train.checkpoints import Checkpoints
from components.train.data.slices import prepare_volumes
from components.train.fit import fit
from components.train.recipe import Recipe
from pipelines.settings.presets import load_preset
from tests.benchmarks.recipes import KeepLast, answer, score


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--first", type=int, default=57, help="patients of the champion")
    parser.add_argument("--seed", type=int, default=0, help="of the patients' order")
    parser.add_argument("--factors", type=float, nargs="*", default=[0.1, 1.0])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--set", nargs="*", default=[], metavar="STEP.KEY=VALUE", dest="changes")
    options = parser.parse_args()
    limit_threads()
    before, after = divide(options)
    champion = trained(options, before, "champion")
    curves = {"scratch": trained(options, after, "scratch")["dice"]}
    for factor in options.factors:
        warm = trained(options, after, f"warm-{factor:g}", champion["weights"], factor)
        curves[f"warm, rate x {factor:g}"] = warm["dice"]
    print(f"{len(champion['dice'])} epochs; champion at its end {champion['dice'][-1]:.3f}")
    tell(curves)


def divide(options):
    """The champion's data set and the later one, on one split and the split that follows it."""
    store = open_store(str(options.folder / "store"))
    everyone = ingest_source(options.source, store, IngestSettings()).manifest
    names = sorted({entry.patient for entry in everyone.volumes})
    random.Random(options.seed).shuffle(names)
    first = set(names[: options.first])
    some = make_manifest(entry for entry in everyone.volumes if entry.patient in first)
    split = split_dataset(some, SplitSettings(), store)
    following = split_dataset(everyone, SplitSettings().following(split.split_id), store)
    cache = options.folder / "cache"
    return SplitDataset(store, cache, some, split), SplitDataset(store, cache, everyone, following)


def trained(options, dataset, name, weights=None, factor=1.0):
    path = options.folder / f"seed-{options.seed}" / f"{name}.json"
    kept = path.with_suffix(".pt")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        used = recipe(options, factor)
        torch.manual_seed(used.seed)
        segmenter = build_segmenter(used.network)
        if weights:
            segmenter.network.load_state_dict(torch.load(weights, weights_only=True))
        last, scores = KeepLast(), ScoreEpochs(prepare_volumes(dataset, "test", segmenter))
        parts = [prepare_volumes(dataset, part, segmenter) for part in ("train", "validation")]
        checkpoints = Checkpoints(
            dataset.store, f"trainings/{path.parent.name}/{name}", path.parent
        )
        fit(used, segmenter, *parts, checkpoints, lambda epoch: None, [last, scores])
        torch.save(last.weights, kept)
        path.write_text(json.dumps(scores.dice))
    return {"dice": json.loads(path.read_text()), "weights": kept}


def recipe(options, factor):
    own = [
        "train.schedule.checkpoint=last",
        f"train.schedule.epochs={options.epochs}",
        f"train.compute.threads={options.threads}",
    ]
    used = Recipe.model_validate(load_preset(options.preset, [*options.changes, *own])["train"])
    rate = used.optimizer.learning_rate * factor
    optimizer = used.optimizer.model_copy(update={"learning_rate": rate})
    return used.model_copy(update={"optimizer": optimizer})


class ScoreEpochs(Callback):
    """Mean Dice of some volumes after each epoch."""

    def __init__(self, volumes):
        self.dice, self._volumes = [], volumes

    def on_train_epoch_end(self, trainer, module):
        segmenter = module.segmenter
        was = segmenter.network.training
        segmenter.network.eval()
        scores = [score(segmenter, answer(segmenter, each), each) for each in self._volumes]
        segmenter.network.train(was)
        self.dice.append(statistics.mean(scores))


def tell(curves):
    goal = curves["scratch"][-1]
    for name, dice in curves.items():
        reached = next((epoch for epoch, value in enumerate(dice, 1) if value >= goal), None)
        print(f"{name:20}", *(f"{value:.3f}" for value in dice), f"  {goal:.3f} by epoch {reached}")


if __name__ == "__main__":
    main()
