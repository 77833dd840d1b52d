"""What a change of a recipe is worth: Dice over the folds of a cross-validation.

    python -m tests.benchmarks.recipes train SOURCE FOLDER NAME [--preset quick] [--folds 0,1,2,3,4]
        [--threads 2] [--decay 0.99] [--set STEP.KEY=VALUE ...]
    python -m tests.benchmarks.recipes table FOLDER

`train` trains the preset with changes, such as `train.optimizer.loss=dice`, once a fold, dealt as
the cross-validation pipeline deals them (`fold.validation_fraction=0.03`), and scores three sets of
weights: of the last epoch, of the best one by the validation patients, and a moving average. Choose
by the validation patients of all folds; the patients of the folds, which no training has seen, say
whether that held. Small components are not left out here, whatever the preset says. FOLDER gets the
data set and, under NAME, a JSON file a fold with every patient's Dice and an .npz with what the
averaged weights answer, to try thresholds and filters on. A fold that is there is not trained
again. Pipelines do without: they have one set of weights a training. `table` prints a row for each
NAME, in the order of time.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from components.ingest.ingestion import ingest_source
from components.ingest.settings import IngestSettings
from components.shared.dataset.parts import SplitDataset
from components.shared.machine import usable_cores
from components.shared.model.network import build_segmenter, with_neighbours
from components.shared.storage.store import open_store
from components.shared.threads import limit_threads
from components.split.assign import assign_folds
from components.split.settings import FoldSettings
from components.train.checkpoints import Checkpoints
from components.train.data.slices import prepare_volumes
from components.train.fit import fit
from components.train.initial import find_initial
from components.train.loading import load_initial
from components.train.precision import pick_precision
from components.train.recipe import Compute, Recipe
from pipelines.settings.presets import load_preset

PARTS = ("validation", "test")
KINDS = ("best", "last", "average")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ways = parser.add_subparsers(dest="way", required=True)
    train = ways.add_parser("train")
    train.add_argument("source")
    train.add_argument("folder", type=Path)
    train.add_argument("name")
    train.add_argument("--set", nargs="*", default=[], metavar="STEP.KEY=VALUE", dest="changes")
    train.add_argument("--preset", default="quick")
    train.add_argument("--folds", default="0,1,2,3,4")
    train.add_argument("--threads", type=int, default=usable_cores())
    train.add_argument("--decay", type=float, default=0.99, help="of the moving average, a step")
    ways.add_parser("table").add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.way == "table":
        tell(options.folder)
        return
    own = [f"train.compute.threads={options.threads}", "train.schedule.checkpoint=best"]
    preset = load_preset(options.preset, [*options.changes, *own])
    recipe = Recipe.model_validate(preset["train"])
    folds = FoldSettings.model_validate(preset["fold"])
    limit_threads()
    for fold in map(int, options.folds.split(",")):
        path = options.folder / options.name / f"{fold}.json"
        if not path.exists():
            train_fold(recipe, folds, options.source, options.folder, path, fold, options.decay)


def train_fold(recipe, folds, source, folder, path, fold, decay):
    path.parent.mkdir(parents=True, exist_ok=True)
    store = open_store(str(folder / "store"))
    manifest = ingest_source(source, store, IngestSettings()).manifest
    split = assign_folds(manifest, folds)[fold]
    dataset = SplitDataset(store, folder / "cache", manifest, split)
    torch.manual_seed(recipe.seed)
    segmenter = build_segmenter(recipe.network)
    weights = find_initial({"network": recipe.network}, store, model_name="brainseg")
    load_initial(segmenter, weights, "network", store, dataset.cache)
    parts = {
        part: prepare_volumes(dataset, part, segmenter) for part in ("train", "validation", "test")
    }
    average, last = MovingAverage(segmenter.network, decay), KeepLast()
    checkpoints = Checkpoints(store, f"trainings/{path.parent.name}/{fold}", folder / "work")
    began = time.monotonic()
    fitted = fit(
        recipe,
        segmenter,
        parts.pop("train"),
        parts["validation"],
        checkpoints,
        lambda epoch: None,
        [average, last],
    )
    seconds = time.monotonic() - began
    best = {name: value.clone() for name, value in segmenter.network.state_dict().items()}
    weights = {"best": best, "last": last.weights, "average": average.weights()}
    dice = {kind: judge(segmenter, values, parts) for kind, values in weights.items()}
    answers = {  # of the averaged weights, which were judged last
        volume.entry.volume: answer(segmenter, volume).half().numpy()
        for volumes in parts.values()
        for volume in volumes
    }
    np.savez(path.with_suffix(".npz"), **answers)
    shown = {"seconds": seconds, "dice": dice, "history": fitted.history}
    settings = {"recipe": recipe.model_dump(mode="json"), "folds": folds.model_dump(mode="json")}
    path.write_text(json.dumps({**shown, **settings}))
    print(path, f"{seconds:.0f} s", means(dice), flush=True)


def judge(segmenter, weights, parts):
    segmenter.network.load_state_dict(weights)
    segmenter.network.eval().to(memory_format=torch.channels_last)
    return {
        part: {
            volume.entry.patient: score(segmenter, answer(segmenter, volume), volume)
            for volume in volumes
        }
        for part, volumes in parts.items()
    }


def means(dice):
    return {
        f"{part} {kind}": round(statistics.mean(dice[kind][part].values()), 4)
        for part in PARTS
        for kind in KINDS
    }


class MovingAverage(Callback):
    def __init__(self, network, decay):
        self._average = AveragedModel(
            network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True
        )

    def on_train_batch_end(self, trainer, module, *_):
        self._average.update_parameters(module.segmenter.network)

    def weights(self):
        return self._average.module.state_dict()


class KeepLast(Callback):
    def on_train_end(self, trainer, module):
        state = module.segmenter.network.state_dict()
        self.weights = {name: value.clone() for name, value in state.items()}


@torch.inference_mode()
def answer(segmenter, volume):
    images = with_neighbours(torch.from_numpy(volume.images).float(), segmenter.context_slices)
    images = images.contiguous(memory_format=torch.channels_last)
    in_bf16 = pick_precision(Compute(device="cpu")) == "bf16-mixed"
    with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
        return torch.cat([segmenter.answer(part).float() for part in images.split(16)])


def score(segmenter, logits, volume):
    truth = torch.from_numpy(volume.truth[0])
    box = torch.from_numpy(volume.box)
    predicted = segmenter.restore(logits, box, truth.shape[1], truth.shape[2])[:, 0] >= 0.5
    total = predicted.sum() + truth.sum()
    return float(2 * (predicted & truth).sum() / total) if total else 1.0


def tell(folder):
    heads = [f"{part} {kind}" for part in PARTS for kind in KINDS]
    print(f"{'':24}{'folds':8}{'min':>5}", *(f"{head:>20}" for head in heads))
    names = {path.parent.name: path.stat().st_mtime for path in folder.glob("*/[0-9].json")}
    for name in sorted(names, key=names.get):
        paths = sorted((folder / name).glob("[0-9].json"))
        folds = [json.loads(path.read_text()) for path in paths]
        minutes = statistics.mean(fold["seconds"] for fold in folds) / 60
        print(f"{name:24}{''.join(path.stem for path in paths):8}{minutes:5.1f}", end=" ")
        for part in PARTS:
            for kind in KINDS:
                dice = [value for fold in folds for value in fold["dice"][kind][part].values()]
                shown = f"{statistics.mean(dice):.3f}, {statistics.median(dice):.3f}"
                print(f"{shown:>20}", end=" ")
        print()


if __name__ == "__main__":
    main()
