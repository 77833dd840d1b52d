"""Slices a second of a training, beside the bare network and fastai; memory and start-up.

    uv pip install --no-deps --target FOLDER fastai==2.8.12 fastcore fasttransform \
        'fastprogress<1.1' fastdownload 'plum-dispatch<2.10' beartype
    PYTHONPATH=FOLDER python -m tests.benchmarks.training [--source SOURCE] [--more SOURCE]

A U-Net with ResNet-18 at 128 pixels with 16 slices a step, from random weights, on all cores; the
network is that of the preset quick, the augmentation about that of fastai. `brainseg` is a training
with reading, sampling and augmentation; `bare` runs forward, loss, backward and optimizer step on
one fixed batch. The two are processes that take turns of a few steps: a machine's speed may change
within seconds. `fastai` is its `unet_learner` with its own defaults (augmentation, float32, one-
cycle) on the same slices as PNG files that have the size already. All is measured ROUNDS times;
ratios are medians. Without fastai its row is left out. The train step of quick, of one epoch, is
started on its own with two numbers of volumes, those of the sources.

Goals: 0.97 of bare; 17 times fastai where the CPU has AMX, 6 times where not; 10 s from the start
of the step's process to its first optimizer step; 2 GB of memory, and of what is not mapped files
less than 1 MB for each volume more, a quarter of one.
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from components.ingest.ingestion import ingest_source
from components.ingest.settings import IngestSettings
from components.shared.dataset.manifest import fetch_manifest
from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.split import fetch_split
from components.shared.machine import usable_cores
from components.shared.model.network import build_segmenter
from components.shared.storage.store import open_store
from components.shared.threads import limit_threads
from components.shared.tracking.local import ensure_local
from components.split.settings import SplitSettings
from components.split.splitting import split_dataset
from components.train.component import train
from components.train.data.slices import Draw, SliceDataset, prepare_volumes
from components.train.distributed.processes import sum_over_processes
from components.train.fit import rehearse
from components.train.optimization.losses import BatchLoss
from components.train.optimization.optimizers import build_optimizer
from components.train.precision import has_fast_bf16
from components.train.recipe import Recipe
from pipelines.settings.presets import load_preset

ROUNDS = 3
BATCH = 16
CHANGES = (
    "train.network.image_size=128",
    f"train.sampling.batch_size={BATCH}",
    # about what fastai does: mirrors, turns, zooms, brightness and contrast
    "train.augmentation={policy: custom, rotation_degrees: 10, scale_factor: 0.1}",
)
WARM_UP = 10  # steps: kernels are made, threads are chosen
CHUNK = 6  # steps of the one, then of the other
STEPS = {"brainseg": 60, "fastai": 10}
GOAL_OF_BARE, GOAL_OF_FASTAI, GOAL_OF_FASTAI_WITH_AMX = 0.97, 6, 17
GOAL_START_S, GOAL_MEMORY_GB, GOAL_MB_A_VOLUME = 10, 2.0, 1.0
PROJECT = Path(__file__).parents[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="synthetic:24")
    parser.add_argument("--more", default="synthetic:72", help="of another number of volumes")
    parser.add_argument("--way", choices=_MEASURES, help="of one process, which measures it")
    parser.add_argument("--folder", type=Path, help="where that process finds the data set")
    options = parser.parse_args()
    if options.way:
        found = _MEASURES[options.way](options.folder)
        if found:  # the bare one has told each of its turns, and nobody listens any more
            print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        few, more = Path(folder, "few"), Path(folder, "more")
        prepare(options.source, few)
        prepare(options.more, more)
        write_pictures(few)
        compare(few)
        tell_step(*(measure_step(folder) for folder in (few, more)))


def compare(folder):
    ways = [way for way in STEPS if way != "fastai" or importlib.util.find_spec("fastai")]
    rounds = [{way: measure(way, folder) for way in ways} for _ in range(ROUNDS)]
    found = [
        {"bare": one["brainseg"]["bare"], **one, "brainseg": one["brainseg"]["brainseg"]}
        for one in rounds
    ]
    print(f"{usable_cores()} cores, AMX: {'yes' if has_amx() else 'no'}; {BATCH} slices a step")
    for way in found[0]:
        speeds = [each[way] for each in found]
        shown = ", ".join(f"{speed:.1f}" for speed in speeds)
        print(f"{way:10}{statistics.median(speeds):8.1f} slices/s  ({shown})")
    tell(found, "bare", GOAL_OF_BARE)
    if "fastai" in ways:
        tell(found, "fastai", GOAL_OF_FASTAI_WITH_AMX if has_amx() else GOAL_OF_FASTAI)


def tell_step(few, more):
    start = few["start_s"]
    print(f"start to first step {start:6.1f} s   {verdict(start <= GOAL_START_S)}")
    for step in (few, more):
        print(
            f"peak memory         {step['peak_gb']:6.2f} GB with {step['volumes']} volumes, at the "
            f"end {step['own_gb']:.2f} not of mapped files   "
            f"{verdict(step['peak_gb'] <= GOAL_MEMORY_GB)}"
        )
    growth = (more["own_gb"] - few["own_gb"]) * 1024 / (more["volumes"] - few["volumes"])
    print(f"for each volume more{growth:6.2f} MB   {verdict(growth < GOAL_MB_A_VOLUME)}")


def tell(found, other, goal):
    ratio = statistics.median(each["brainseg"] / each[other] for each in found)
    print(f"brainseg / {other:9}{ratio:6.2f}   goal {goal}: {verdict(ratio >= goal)}")


def verdict(reached):
    return "reached" if reached else "MISSED"


def has_amx():
    return " amx_bf16" in Path("/proc/cpuinfo").read_text()


def measure(way, folder):
    return last_line_of(command_of(way, folder))


def measure_step(folder):
    """A process of its own module, which imports nothing before the step does."""
    command = [sys.executable, "-m", "tests.benchmarks.train_step", str(folder)]
    return last_line_of([*command, repr(time.time())])


def last_line_of(command):
    done = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def command_of(way, folder):
    return [sys.executable, "-m", __spec__.name, "--way", way, "--folder", str(folder)]


def prepare(source, folder):
    """Publishes and splits the source, prepares what a training reads, and makes an MLflow."""
    store = open_store(str(folder / "store"))
    manifest = ingest_source(source, store, IngestSettings()).manifest
    split = split_dataset(manifest, SplitSettings(), store)
    ensure_local(address := f"sqlite:///{folder.absolute()}/mlflow.db")
    quick = Recipe.model_validate(load_preset("quick", ["train.schedule.epochs=1"])["train"])
    names = {
        "dataset_id": manifest.dataset_id,
        "split_id": split.split_id,
        "mlflow": address,
        "settings": quick.model_dump_json(),
    }
    (folder / "names.json").write_text(json.dumps(names))
    (folder / "manifest").write_bytes(manifest.to_json())
    (folder / "split").write_bytes(split.to_json())
    (folder / "report").write_text("")
    code = train.component_spec.implementation.container.command[-1]
    (folder / "ephemeral_component.py").write_text(code)
    for segmenter in map(build_segmenter, (recipe().network, quick.network)):
        for part in ("train", "validation"):
            prepare_volumes(open_dataset(folder), part, segmenter)


def write_pictures(folder):
    """Writes the slices of the training part as PNG files."""
    from PIL import Image

    slices = slice_dataset(folder)
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for number in range(len(slices)):
        image, mask, _ = slices[Draw(number)]
        middle = image[3:6].float().permute(1, 2, 0).numpy()
        pixels = np.clip(128 + 40 * middle, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        Image.fromarray((mask[0] > 0.5).byte().numpy()).save(folder / "masks" / f"{number}.png")


def recipe():
    return Recipe.model_validate(load_preset("quick", CHANGES)["train"])


def open_dataset(folder):
    store = open_store(str(folder / "store"))
    names = names_of(folder)
    manifest = fetch_manifest(store, names["dataset_id"])
    return SplitDataset(store, folder / "cache", manifest, fetch_split(store, names["split_id"]))


def names_of(folder):
    return json.loads((folder / "names.json").read_text())


def volumes_of(folder, segmenter):
    return prepare_volumes(open_dataset(folder), "train", segmenter)


def slice_dataset(folder):
    segmenter = build_segmenter(recipe().network)
    return SliceDataset(volumes_of(folder, segmenter), segmenter.context_slices)


class _Turns(Callback):
    """Lets the bare process do steps between those of a training, and takes the time of both."""

    def __init__(self, bare):
        self._bare, self._since = bare, 0.0
        self.taken = {"brainseg": 0.0, "bare": 0.0}

    def on_train_batch_end(self, trainer, *_):
        done = trainer.global_step - WARM_UP
        if done % CHUNK:
            return
        if done > 0:
            self.taken["brainseg"] += time.monotonic() - self._since
            self.taken["bare"] += _ask(self._bare)
        trainer.should_stop = done >= STEPS["brainseg"]
        self._since = time.monotonic()


def _ask(bare):
    bare.stdin.write("go\n")
    bare.stdin.flush()
    return float(bare.stdout.readline())


def train_brainseg(folder):
    """Slices a second of a training and of the bare network."""
    limit_threads()
    segmenter = build_segmenter(recipe().network)
    with subprocess.Popen(
        command_of("bare", folder),
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as bare:
        _ask(bare)
        turns = _Turns(bare)
        rehearse(recipe(), segmenter, volumes_of(folder, segmenter), turns)
        bare.stdin.close()
    return {way: STEPS["brainseg"] * BATCH / taken for way, taken in turns.taken.items()}


def train_bare(folder):
    """Does CHUNK steps of the network and its optimizer for each line that it is given."""
    slices = slice_dataset(folder)
    network = build_segmenter(recipe().network).network.to(memory_format=torch.channels_last)
    chosen = np.flatnonzero(slices.has_tumour)[:BATCH]
    images = torch.stack([slices[Draw(number)][0] for number in chosen]).float()
    images = images.contiguous(memory_format=torch.channels_last)
    masks = torch.stack([slices[Draw(number)][1] for number in chosen])
    settings = recipe().optimizer
    loss = BatchLoss(settings.loss)
    optimizer = build_optimizer(settings, list(network.parameters()), [])
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate
    for _ in sys.stdin:
        began = time.monotonic()
        for _ in range(CHUNK):
            with torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bf16()):
                logits = network(images)
            loss(logits.float(), masks, sum_over_processes).backward()
            optimizer.step()
            optimizer.zero_grad()
        print(time.monotonic() - began, flush=True)


def train_fastai(folder):
    from fastai.vision.all import (
        Callback,
        CancelFitException,
        SegmentationDataLoaders,
        aug_transforms,
        get_image_files,
        resnet18,
        unet_learner,
    )

    class Clock(Callback):
        seen, began, speed = 0, 0.0, 0.0

        def after_batch(self):
            self.seen += 1
            if self.seen == WARM_UP:
                self.began = time.monotonic()
            if self.seen == WARM_UP + STEPS["fastai"]:
                self.speed = STEPS["fastai"] * BATCH / (time.monotonic() - self.began)
                raise CancelFitException

    loaders = SegmentationDataLoaders.from_label_func(
        folder,
        get_image_files(folder / "images"),
        lambda path: path.parents[1] / "masks" / path.name,
        codes=["rest", "tumour"],
        bs=BATCH,
        valid_pct=0.02,  # a validation between two epochs takes next to nothing
        batch_tfms=aug_transforms(),
    )
    clock = Clock()
    learner = unet_learner(loaders, resnet18, pretrained=False, cbs=clock)
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(20)  # the clock ends it
    return clock.speed


_MEASURES = {"bare": train_bare, "brainseg": train_brainseg, "fastai": train_fastai}

if __name__ == "__main__":
    main()
