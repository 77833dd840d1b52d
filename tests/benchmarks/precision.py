"""A step of a preset in the arithmetic that is picked, beside the other one.

    python -m tests.benchmarks.precision [--preset quick] [--steps N] [--set train.KEY=VALUE ...]

Whole steps on one thread, with sampling, augmentation, loss, gradient and optimizer: in float32
throughout, and in bf16-mixed with Newton-Schulz in bfloat16. CPU times of the process, in turns, so
a busy machine changes the ratio little. Goal: what `precision: auto` picks is faster.
"""

import argparse
import copy
import statistics
import time
from types import SimpleNamespace

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from components.shared.model.network import build_segmenter
from components.train.data.slices import PreparedVolume
from components.train.fit import rehearse
from components.train.optimization import optimizers
from components.train.precision import pick_precision
from pipelines.settings.presets import load_preset

ROUNDS = 3


class CpuTime(Callback):
    """Keeps the CPU seconds from one batch to the next, and stops after some of them."""

    def __init__(self, steps):
        self.seconds, self._ends, self._steps = [], [], steps

    def on_train_batch_end(self, trainer, *_):
        self._ends.append(time.process_time())
        self.seconds = np.diff(self._ends).tolist()
        trainer.should_stop = len(self.seconds) == self._steps


def volumes_of(side):
    generator = np.random.default_rng(0)
    for _ in range(4):
        masks = np.zeros((24, side, side), np.uint8)
        masks[:, 30:60, 30:60] = 255
        yield PreparedVolume(
            SimpleNamespace(slices=24, volume="random"),
            generator.normal(size=(24, 3, side, side)).astype(np.float16),
            np.array([0, 0, 1, 1], np.float32),
            masks[:, None],
            masks // 255,
        )


def measure(recipe, segmenter, volumes, steps, precision):
    """Seconds of a step, the median."""
    compute = recipe.compute.model_copy(update={"precision": precision, "threads": 1})
    clock = CpuTime(steps)
    before = optimizers.has_fast_bf16
    optimizers.has_fast_bf16 = lambda: precision == "bf16-mixed"
    try:
        used = recipe.model_copy(update={"compute": compute})
        rehearse(used, copy.deepcopy(segmenter), volumes, clock)
    finally:
        optimizers.has_fast_bf16 = before
    return statistics.median(clock.seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--set", nargs="*", default=[], metavar="STEP.KEY=VALUE", dest="changes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    changes = ["train.network.encoder_weights=none", *options.changes, "train.compute.device=cpu"]
    recipe = load_preset(options.preset, changes)["train"]
    segmenter = build_segmenter(recipe.network)
    volumes = list(volumes_of(recipe.network.image_size))
    picked = pick_precision(recipe.compute)
    other = "32-true" if picked == "bf16-mixed" else "bf16-mixed"
    ratios = []
    for number in range(1, ROUNDS + 1):
        slow, fast = (
            measure(recipe, segmenter, volumes, options.steps, one) for one in (other, picked)
        )
        ratios.append(slow / fast)
        print(f"round {number}: {other} {slow:.3f} s, {picked} {fast:.3f} s")
    ratio = statistics.median(ratios)
    verdict = "reached" if ratio > 1 else "MISSED"
    print(f"{picked}, which is picked, is {ratio:.2f} times as fast: {verdict}")


if __name__ == "__main__":
    main()
