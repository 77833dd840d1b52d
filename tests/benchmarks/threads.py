"""Training steps with one thread, with all, and with the number that training chooses.

    python -m tests.benchmarks.threads [--steps 12] [--slices 24]

Alone, beside a process that keeps one core busy, and under a quota of half of the cores (needs
root; else it is left out). The network is that of the preset quick. Goal: with the number that
training chooses a step takes no longer than with one thread; 1.1 times as long is taken for that,
as looks at the machine may take a twentieth of the time and two medians of the same way differ by
as much. The three are measured in turns, ROUNDS times, and the least counts: what else runs on the
machine passes.
"""

import argparse
import contextlib
import json
import logging
import os
import statistics
import subprocess
import sys
import time
import warnings
from operator import itemgetter
from pathlib import Path

import lightning
import segmentation_models_pytorch as smp
import torch
from torch.utils.data import DataLoader, TensorDataset

from components.shared.machine import usable_cores
from components.shared.threads import limit_threads
from components.train.callbacks.threads import ChooseThreads
from components.train.recipe import Compute
from tests.cpu_quota import NoQuotaError, cpu_quota_of

GOAL = 1.1
ROUNDS = 3
WAYS = ("one", "all", "chosen")
PROJECT = Path(__file__).parents[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--slices", type=int, default=24, help="a step")
    parser.add_argument("--way", choices=WAYS, help="of one process, which measures it")
    options = parser.parse_args()
    if options.way:
        print(json.dumps(train(options.way, options.steps, options.slices)))
        return
    print(f"{usable_cores()} cores; ms a step, least of {ROUNDS} medians of {options.steps}")
    print(f"{'':22}{'1 thread':>10}{'all':>10}{'chosen':>10}  chosen/1   all/1")
    compare("alone", contextlib.nullcontext([]), options)
    compare("beside a busy process", busy_core(), options)
    half = usable_cores() / 2
    try:
        compare(f"quota of {half:g} cores", cpu_quota_of(half), options)
    except NoQuotaError as error:
        print(f"no quota can be made here: {error}")


def compare(situation, context, options):
    """Trains in each way, each time in a process of its own, and prints a row."""
    with context as before:
        rounds = [{way: measure(before, way, options) for way in WAYS} for _ in range(ROUNDS)]
    found = {way: min((each[way] for each in rounds), key=itemgetter("step_s")) for way in WAYS}
    one, every, chosen = (1e3 * found[way]["step_s"] for way in WAYS)
    print(
        f"{situation:22}{one:10.0f}{every:10.0f}{chosen:10.0f}{chosen / one:10.2f}"
        f"{every / one:8.2f}  {found['chosen']['threads']} threads, "
        f"{found['chosen']['looking_s']:.1f} s to find out: "
        f"{'reached' if chosen <= GOAL * one else 'MISSED'}"
    )


def measure(before, way, options):
    command = [*before, sys.executable, "-m", __spec__.name, "--way", way]
    command += ["--steps", str(options.steps), "--slices", str(options.slices)]
    done = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@contextlib.contextmanager
def busy_core():
    core = str(min(os.sched_getaffinity(0)))
    burn = subprocess.Popen(["taskset", "-c", core, sys.executable, "-c", "while True: pass"])
    try:
        yield []
    finally:
        burn.kill()
        burn.wait()


class Steps(lightning.Callback):
    """Takes the time of each step; stands behind the callback that sets the threads."""

    def __init__(self):
        self.seconds, self.threads = [], None

    def on_train_batch_start(self, *_):
        self._started = time.monotonic()

    def on_train_batch_end(self, *_):
        self.seconds.append(time.monotonic() - self._started)
        self.threads = torch.get_num_threads()


class Quick(lightning.LightningModule):
    """The network of the preset quick, with a loss of its kind."""

    def __init__(self):
        super().__init__()
        network = smp.create_model(
            "unet",
            "resnet18",
            encoder_depth=4,
            encoder_weights=None,
            decoder_channels=(64, 32, 16, 8),
            in_channels=9,
        )
        self.network = network.to(memory_format=torch.channels_last)
        self._loss = smp.losses.DiceLoss(mode="binary", from_logits=True)

    def training_step(self, batch, _):
        images = batch[0].contiguous(memory_format=torch.channels_last)
        return self._loss(self.network(images).float(), batch[1])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=2e-3, fused=True)


def train(way, steps, slices):
    """Seconds of a step, of looking for the number of threads, and that number."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    task, timer = Quick(), Steps()
    every = torch.get_num_threads()  # by affinity, as torch counts
    limit_threads()
    asked = {"one": 1, "all": every, "chosen": None}[way]
    images = torch.randn(slices, 9, 128, 128)
    batch = TensorDataset(images, (images[:, :1] > 1).float())
    trainer = lightning.Trainer(
        accelerator="cpu",
        precision="bf16-mixed",
        max_epochs=steps + 1,
        callbacks=[ChooseThreads(task.network, Compute(threads=asked), lambda _: 128), timer],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    began = time.monotonic()
    trainer.fit(task, DataLoader(batch, batch_size=slices))
    spent = time.monotonic() - began
    return {
        "step_s": statistics.median(timer.seconds[1:]),  # the first makes the kernels
        "looking_s": spent - sum(timer.seconds),
        "threads": timer.threads,
    }


if __name__ == "__main__":
    main()
