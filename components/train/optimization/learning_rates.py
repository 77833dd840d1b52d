"""The learning rate of every step, from the courses of the phases."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    SequentialLR,
)

from components.train.optimization.optimizers import BETAS
from components.train.recipe import OptimizerSettings, Phase, Schedule

_FIRST_SHARE = 1 / 25  # of the peak, at which `cosine` begins; OneCycleLR begins there too


@dataclass(frozen=True)
class Point:
    """What holds in one step.

    Attributes:
        rest: Learning rate of all that is not the encoder.
        encoder: Learning rate of the encoder.
        beta: AdamW's first one, which is its momentum; Muon's own stays.
    """

    rest: float
    encoder: float
    beta: float


def learning_rates(schedule: Schedule, optimizer: OptimizerSettings, steps: int) -> list[Point]:
    """The points of all steps.

    Args:
        schedule: Phases and the course within each.
        optimizer: Its rate and factor hold where a phase has none of its own.
        steps: Of the whole training; those of an epoch are equally many.
    """
    starts = [start * steps // schedule.epochs for start in schedule.phase_starts]
    return [
        point
        for phase, (first, end) in zip(schedule.phases, pairwise(starts), strict=True)
        for point in _points(phase, schedule, optimizer, end - first)
    ]


def _points(
    phase: Phase, schedule: Schedule, optimizer: OptimizerSettings, steps: int
) -> Iterator[Point]:
    factor = phase.encoder_factor or optimizer.encoder_factor
    peak = optimizer.learning_rate * phase.lr_factor
    for rate, beta in _course(schedule, peak, steps):
        yield Point(rest=rate, encoder=rate * factor, beta=beta)


def _course(schedule: Schedule, peak: float, steps: int) -> Iterator[tuple[float, float]]:
    """Rate and momentum of each step, by torch's own schedulers."""
    trial = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=peak, betas=BETAS)
    scheduler = _scheduler(trial, schedule, peak, steps)
    for step in range(steps):
        group = trial.param_groups[0]
        yield group["lr"], group["betas"][0]
        if step + 1 < steps:
            trial.step()  # nothing is learned: there is no gradient
            scheduler.step()


def _scheduler(trial: Optimizer, schedule: Schedule, peak: float, steps: int) -> LRScheduler:
    if schedule.lr_schedule == "one_cycle":
        # torch divides by the warm-up's steps less one; where that is 0 it is to begin at the peak
        share = schedule.warmup_fraction * (0.999 if schedule.warmup_fraction * steps == 1 else 1)
        return OneCycleLR(trial, max_lr=peak, total_steps=steps, pct_start=share)
    warm = min(max(1, round(schedule.warmup_fraction * steps)), max(1, steps - 1))
    rising = LinearLR(trial, start_factor=_FIRST_SHARE, total_iters=warm)
    falling = CosineAnnealingLR(trial, T_max=max(1, steps - warm))
    return SequentialLR(trial, [rising, falling], milestones=[warm])


class FollowPoints(LRScheduler):
    """Sets what a list says; the number of the step is all of its state.

    Args:
        optimizer: With two groups, the encoder's behind that of the rest.
        points: One a step.
    """

    def __init__(self, optimizer: Optimizer, points: Sequence[Point]) -> None:
        self._points = points
        super().__init__(optimizer)

    def get_lr(self) -> list[float | torch.Tensor]:
        """Rates of the two groups in the present step; the momentum is set beside."""
        point = self._points[min(self.last_epoch, len(self._points) - 1)]
        for group in self.optimizer.param_groups:
            group["betas"] = (point.beta, group["betas"][1])
        return [point.rest, point.encoder]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on after that step; the optimizer keeps its present rates itself."""
        self.last_epoch = state_dict["last_epoch"]
