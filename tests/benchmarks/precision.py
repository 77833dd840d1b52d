"""A step of the preset quick in the arithmetic that is picked, beside bfloat16 throughout.

    python -m tests.benchmarks.precision [--steps N]

Whole steps on one thread, with sampling, augmentation, loss, gradient and optimizer: once as
`precision: auto` picks, once in bf16-mixed with Newton-Schulz in bfloat16. CPU times of the
process, in turns, so a busy machine changes the ratio little. Goal where the CPU has no AMX: 1.35.
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
from components.train.precision import has_fast_bf16, pick_precision
from pipelines.settings.presets import load_preset

GOAL = 1.35
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


def measure(recipe, segmenter, volumes, steps, *, bf16):
    """Seconds of a step, the median."""
    precision = "bf16-mixed" if bf16 else pick_precision(recipe.compute)
    compute = recipe.compute.model_copy(update={"precision": precision, "threads": 1})
    clock = CpuTime(steps)
    before = optimizers.has_fast_bf16
    optimizers.has_fast_bf16 = lambda: bf16 or before()
    try:
        used = recipe.model_copy(update={"compute": compute})
        rehearse(used, copy.deepcopy(segmenter), volumes, clock)
    finally:
        optimizers.has_fast_bf16 = before
    return statistics.median(clock.seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4)
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    recipe = load_preset("quick", ["train.compute.device=cpu"])["train"]
    segmenter = build_segmenter(recipe.network)
    volumes = list(volumes_of(recipe.network.image_size))
    ratios = []
    for number in range(1, ROUNDS + 1):
        slow, fast = (measure(recipe, segmenter, volumes, steps, bf16=one) for one in (True, False))
        ratios.append(slow / fast)
        print(
            f"round {number}: bfloat16 {slow:.3f} s, picked {fast:.3f} s, ratio {slow / fast:.2f}"
        )
    goal = "no goal: this CPU has AMX" if has_fast_bf16() else f"goal {GOAL}"
    print(
        f"{pick_precision(recipe.compute)} is {statistics.median(ratios):.2f} times as fast; {goal}"
    )


if __name__ == "__main__":
    main()
