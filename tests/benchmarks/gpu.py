"""What a GPU does with this project: speed, idle fraction, memory, arithmetic, prediction.

    python -m tests.benchmarks.gpu [--source SOURCE] [--output gpu.json] [--minutes 8]

Measures, one after the other, for each of `--presets` (default: standard and best), from random
weights:

- `training`: slices a second of a training, beside `bare` steps of the network and its optimizer
  on one fixed batch; `idle`: fraction of the training's time in which the device computes nothing,
  by the kernels' times of `torch.profiler`; `memory_gb`: high-water mark.
- `compile`: bare steps of a network that `torch.compile` compiled, and the seconds that took.
- `precision`: validation Dice after EPOCHS epochs in float32 and in mixed precision.
- `prediction`: volumes a second of the stored form, whole volumes in and probabilities out.

And once: `fastai`, its `unet_learner` on the same card (install it as `tests.benchmarks.training`
says; left out without it), and `processes`: a step of two processes that share the device against
that of one, as the largest difference between their gradients (correctness only).

A measurement that fails is an `error` in its row, and the others go on. None begins when the
minutes are over: its row says `skipped`. The JSON has one entry for each measurement. Without a
GPU it refuses; `--device cpu` runs what a CPU can, to try the script itself.
"""

import argparse
import contextlib
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback
from torch import distributed

from components.shared.model.model_folder import write_segmenter
from components.shared.model.network import build_segmenter
from components.shared.model.segmenter import load_segmenter
from components.shared.storage.store import open_store
from components.train.checkpoints import Checkpoints
from components.train.data.slices import Draw, SliceDataset, prepare_volumes
from components.train.distributed.batch_norm import (
    batch_norm_over_processes,
    with_sync_batch_norm,
)
from components.train.distributed.processes import sum_over_processes
from components.train.fit import fit, rehearse
from components.train.optimization.losses import BatchLoss
from components.train.optimization.optimizers import build_optimizer
from components.train.precision import pick_precision
from components.train.recipe import Recipe
from pipelines.settings.presets import load_preset
from tests.benchmarks.training import (
    PROJECT,
    open_dataset,
    prepare,
    recipe,
    train_fastai,
    write_pictures,
)

EPOCHS = 3
WARM_UP = 10  # steps
PRECISIONS = ("32-true", "bf16-mixed")
PORT = 29517


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--source", default="synthetic:24")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    parser.add_argument("--presets", nargs="+", default=["standard", "best"])
    parser.add_argument("--steps", type=int, default=60, help="of each measurement of speed")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--rank", type=int, help="of one of two processes that share the device")
    parser.add_argument("--folder", type=Path, help="where that process finds the data set")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU; use --device cpu to try the script itself")
    if options.rank is not None:
        share_device(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = measure_all(options, Path(folder))
    options.output.write_text(json.dumps(found, indent=2))
    print(f"written to {options.output}")


def measure_all(options, folder):
    ends = time.monotonic() + 60 * options.minutes
    prepare(options.source, folder)
    found = {"device": name_of(options.device), "torch": torch.__version__}

    def note(name, measure, *given):
        found[name] = measured(measure, given) if time.monotonic() < ends else {"skipped": "late"}
        print(name, json.dumps(found[name]), flush=True)

    for preset in options.presets:
        used = recipe_of(preset, options.device)
        for measure in (training, compiled, precision, prediction):
            note(f"{preset}/{measure.__name__}", measure, used, folder, options.steps)
    note("processes", processes, options, folder)
    if importlib.util.find_spec("fastai"):
        note("fastai", fastai, folder, options)
    return found


def measured(measure, given):
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        row = measure(*given)
    except Exception as error:  # noqa: BLE001 - shown; the others still run, a GPU is dear
        return {"error": f"{type(error).__name__}: {error}"}
    if torch.cuda.is_available():
        row["memory_gb"] = torch.cuda.max_memory_allocated() / 2**30
    return row


def name_of(device):
    return torch.cuda.get_device_name() if device == "cuda" else "CPU"


def recipe_of(preset, device, *changes):
    own = ["train.network.encoder_weights=none", f"train.compute.device={device}", *changes]
    return Recipe.model_validate(load_preset(preset, own)["train"])


def training(used, folder, steps):
    bare = bare_steps(used, folder, steps)
    segmenter = build_segmenter(used.network)
    clock = Clock(used.compute.device, steps)
    volumes = prepare_volumes(open_dataset(folder), "train", segmenter)
    rehearse(used, segmenter, volumes, clock)
    slices = used.sampling.batch_size / clock.seconds
    found = {"slices_s": slices, "bare_slices_s": bare, "ratio": slices / bare}
    return {**found, **clock.idle}


class Clock(Callback):
    """Seconds of a step; then, where there is a GPU, the fraction of it in which that is idle."""

    def __init__(self, device, steps):
        self.seconds, self.idle = 0.0, {}
        self._device, self._steps, self._since = device, steps, 0.0
        self._profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])

    def on_train_batch_end(self, trainer, *_):
        done = trainer.global_step - WARM_UP
        if done == 0:
            self._since = now(self._device)
        elif done == self._steps:
            self.seconds = (now(self._device) - self._since) / done
            trainer.should_stop = self._device == "cpu"
            if self._device == "cuda":
                self._profiler.start()
        elif done == 2 * self._steps:
            now(self._device)
            self._profiler.stop()
            self.idle = {"idle": 1 - self._busy() / self._steps / self.seconds}
            trainer.should_stop = True

    def _busy(self):
        microseconds = sum(row.self_device_time_total for row in self._profiler.key_averages())
        return microseconds / 1e6


def now(device):
    if device == "cuda":
        torch.cuda.synchronize()
    return time.monotonic()


def bare_steps(used, folder, steps, convert=lambda network: network):
    """Slices a second of the network, its loss and its optimizer on one batch."""
    segmenter = build_segmenter(used.network)
    device = used.compute.device
    images, masks = (each.to(device) for each in batch_of(used, folder, segmenter))
    network = convert(segmenter.network.to(device, memory_format=torch.channels_last))
    loss, optimizer = BatchLoss(used.optimizer.loss), optimizer_of(used, network)
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            since = now(device)
        with arithmetic(used):
            logits = network(images)
        loss(logits.float(), masks, sum_over_processes).backward()
        optimizer.step()
        optimizer.zero_grad()
    return steps * used.sampling.batch_size / (now(device) - since)


def batch_of(used, folder, segmenter):
    volumes = prepare_volumes(open_dataset(folder), "train", segmenter)
    slices = SliceDataset(volumes, segmenter.context_slices)
    pairs = [slices[Draw(number % len(slices))] for number in range(used.sampling.batch_size)]
    images = torch.stack([image for image, _, _ in pairs]).float()
    masks = torch.stack([mask for _, mask, _ in pairs])
    return images.contiguous(memory_format=torch.channels_last), masks


def optimizer_of(used, network):
    optimizer = build_optimizer(used.optimizer, list(network.parameters()), [])
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    return optimizer


def arithmetic(used):
    mixed = pick_precision(used.compute) == "bf16-mixed"
    return torch.autocast(used.compute.device, torch.bfloat16, enabled=mixed)


def compiled(used, folder, steps):
    began = time.monotonic()
    speed = bare_steps(used, folder, steps, torch.compile)
    taken = time.monotonic() - began - (WARM_UP + steps) * used.sampling.batch_size / speed
    return {"slices_s": speed, "compile_s": taken}


def precision(used, folder, _steps):
    return {kind: dice_after_epochs(used, folder, kind) for kind in PRECISIONS}


def dice_after_epochs(used, folder, kind):
    changed = {
        "epochs": EPOCHS,
        "validate_every_epochs": EPOCHS,
        "phases": used.schedule.phases[:1],
    }
    used = used.model_copy(
        update={
            "compute": used.compute.model_copy(update={"precision": kind}),
            "schedule": used.schedule.model_copy(update=changed),
        }
    )
    torch.manual_seed(used.seed)
    segmenter = build_segmenter(used.network)
    dataset = open_dataset(folder)
    parts = [prepare_volumes(dataset, part, segmenter) for part in ("train", "validation")]
    with tempfile.TemporaryDirectory() as scratch:
        store = open_store(scratch)
        checkpoints = Checkpoints(store, "precision", Path(scratch, "work"))
        return fit(used, segmenter, *parts, checkpoints, lambda _: None).history[-1]


def prediction(used, folder, _steps):
    dataset = open_dataset(folder)
    with tempfile.TemporaryDirectory(dir=folder) as model:
        write_segmenter(build_segmenter(used.network).eval(), Path(model))
        segmenter = load_segmenter(model, used.compute.device)
    images = [dataset.volume(entry).image for entry in dataset.entries("validation")]
    segmenter(images[0])
    taken = []
    for image in images:
        began = now(used.compute.device)
        segmenter(image)
        taken.append(now(used.compute.device) - began)
    return {"volumes_s": 1 / statistics.median(taken), "slices": images[0].shape[0]}


def processes(options, folder):
    """Largest difference of a gradient, by one process and by two with half the batch each."""
    command = [sys.executable, "-m", __spec__.name, "--device", options.device]
    command += ["--folder", str(folder), "--presets", options.presets[0]]
    running = [subprocess.Popen([*command, "--rank", str(rank)], cwd=PROJECT) for rank in range(2)]
    codes = [each.wait() for each in running]
    if any(codes):
        raise RuntimeError("one of the two processes failed; its message is above")
    return json.loads((folder / "processes.json").read_text())


def share_device(options):
    used = recipe_of(options.presets[0], options.device, "train.compute.precision=32-true")
    torch.manual_seed(used.seed)
    segmenter = build_segmenter(used.network)
    images, masks = batch_of(used, options.folder, segmenter)
    whole = gradients(used, segmenter.network, images, masks)
    # NCCL refuses two processes on one device
    address = f"tcp://127.0.0.1:{PORT}"
    distributed.init_process_group("gloo", address, world_size=2, rank=options.rank)
    own = segmenter.network
    if options.device == "cuda":
        own = with_sync_batch_norm(own)
    half = gradients(used, own, images[options.rank :: 2], masks[options.rank :: 2])
    for each in half:
        distributed.all_reduce(each)  # as DDP: the mean over the processes
        each /= 2
    largest = max(float(each.abs().max()) for each in whole)
    differences = [float((a - b).abs().max()) for a, b in zip(whole, half, strict=True)]
    if options.rank == 0:
        found = {"largest_gradient": largest, "largest_difference": max(differences)}
        (options.folder / "processes.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


def gradients(used, network, images, masks):
    device = torch.device(used.compute.device)
    network = network.to(device).train()
    network.zero_grad()
    with batch_norm_over_processes(device):
        logits = network(images.to(device))
    total = sum_over_processes if distributed.is_initialized() else None
    BatchLoss(used.optimizer.loss)(logits, masks.to(device), total).backward()
    return [each.grad.clone() for each in network.parameters() if each.grad is not None]


def fastai(folder, options):
    """Of `tests.benchmarks.training`: the same recipe on slices that have the size already."""
    with contextlib.chdir(PROJECT):
        write_pictures(folder)
    own = recipe().model_copy(
        update={"compute": recipe().compute.model_copy(update={"device": options.device})}
    )
    ours = training(own, folder, options.steps)
    theirs = train_fastai(folder)
    return {"brainseg_slices_s": ours["slices_s"], "slices_s": theirs}


if __name__ == "__main__":
    main()
