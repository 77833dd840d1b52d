"""The learning rate of every step, from the phases' schedules."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR

from components.shared.errors import UserError
from components.train.optimization.library import classes_of, find_class, make
from components.train.optimization.optimizers import BETAS
from components.train.recipe import OptimizerSettings, Schedule

_FIRST_FRACTION = 1 / 25  # of the peak, where a warm-up begins; OneCycleLR begins there too


@dataclass(frozen=True)
class Point:
    """Learning rates and momentum of one step.

    Attributes:
        rest: Learning rate of the weights outside the encoder.
        encoder: Learning rate of the encoder.
        momentum: First beta, or the momentum of optimizers without betas; `None` leaves the
            optimizer's own.
    """

    rest: float
    encoder: float
    momentum: float | None


def learning_rates(
    schedule: Schedule, optimizer: OptimizerSettings, steps: int, place: str = "train.schedule"
) -> list[Point]:
    """The points of all steps.

    Args:
        schedule: Phases and the schedule within each.
        optimizer: Its learning rate and encoder factor hold where a phase has none of its own.
        steps: Steps of the whole training run; every epoch has the same number.
        place: Section of the schedule in a message.

    Raises:
        UserError: If the schedule is unknown, its options are wrong or it fails.
    """
    starts = [start * steps // schedule.epochs for start in schedule.phase_starts]
    points: list[Point] = []
    for phase, (first, end) in zip(schedule.phases, pairwise(starts), strict=True):
        factor = phase.encoder_factor or optimizer.encoder_factor
        rates = _rates(schedule, optimizer.learning_rate * phase.lr_factor, end - first, place)
        points += [Point(rate, rate * factor, momentum) for rate, momentum in rates]
    if all(point.momentum == BETAS[0] for point in points):
        return [replace(point, momentum=None) for point in points]
    return points


def _rates(
    schedule: Schedule, peak: float, steps: int, place: str
) -> Iterator[tuple[float, float]]:
    """Learning rate and momentum of each step, by torch's own schedulers."""
    name, options = schedule.lr_schedule.name, schedule.lr_schedule.options
    place = f"{place}.lr_schedule"
    shown = f"{place}={name}"
    if name == "one_cycle":
        # torch divides by the warm-up's steps minus one; where that is 0 it begins at the peak
        nearly = 0.999 if schedule.warmup_fraction * steps == 1 else 1
        fraction = schedule.warmup_fraction * nearly
        fixed = {"max_lr": peak, "total_steps": steps, "pct_start": fraction}
        yield from _follow(OneCycleLR, peak, steps, fixed, options, shown)
        return
    if name == lr_scheduler.ReduceLROnPlateau.__name__:
        raise UserError(
            f"{shown} needs a validation score; a schedule depends on the optimizer step alone. "
            "schedule.patience stops a run that does not improve"
        )
    warm = min(max(1, round(schedule.warmup_fraction * steps)), max(1, steps - 1))
    warm = warm if schedule.warmup_fraction else 0
    rising = {"start_factor": _FIRST_FRACTION, "total_iters": warm}
    yield from _follow(LinearLR, peak, warm, rising, {}, shown)
    known = _known()
    kind = find_class(name, LRScheduler, known, ", ".join(known), place)
    yield from _follow(kind, peak, steps - warm, {}, options, shown)


def _known() -> dict[str, type[LRScheduler]]:
    """Schedulers that depend on the step alone and whose options YAML can hold."""
    others = (
        lr_scheduler.ReduceLROnPlateau,  # needs a validation score
        lr_scheduler.LambdaLR,
        lr_scheduler.MultiplicativeLR,
        lr_scheduler.SequentialLR,
        lr_scheduler.ChainedScheduler,
    )
    found = classes_of(lr_scheduler, LRScheduler)
    return {"one_cycle": OneCycleLR, "cosine": CosineAnnealingLR} | {
        name: kind for name, kind in found.items() if kind not in others and name[0] != "_"
    }


def _follow(
    kind: Callable[..., LRScheduler],
    peak: float,
    steps: int,
    fixed: Mapping[str, float],
    options: Mapping[str, Any],
    shown: str,
) -> Iterator[tuple[float, float]]:
    """Steps a scheduler with a trial optimizer, which learns nothing."""
    if not steps:
        return
    trial = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=peak, betas=BETAS)
    # if left out, these are the steps and the peak: nobody knows the steps when writing a recipe
    usual = {"T_max": steps, "total_iters": steps, "total_steps": steps, "max_lr": peak}
    accepted = inspect.signature(kind).parameters
    filled = {key: value for key, value in usual.items() if key in accepted and key not in fixed}
    scheduler = make(kind, trial, fixed=fixed, options={**filled, **options}, place=shown)
    for step in range(steps):
        group = trial.param_groups[0]
        yield float(group["lr"]), group["betas"][0]
        if step + 1 < steps:
            trial.step()
            _step(scheduler, shown)


def _step(scheduler: LRScheduler, shown: str) -> None:
    try:
        scheduler.step()
    except Exception as error:  # of any kind: it is not our code
        raise UserError(f"{shown} cannot be stepped once per optimizer step: {error}") from error


class FollowPoints(LRScheduler):
    """Sets the learning rates of a list, a point per step; the step's number is its whole state.

    The optimizer has two groups: the other parameters, then the encoder's.
    """

    def __init__(self, optimizer: Optimizer, points: Sequence[Point]) -> None:
        self._points = points
        super().__init__(optimizer)

    def get_lr(self) -> list[float | torch.Tensor]:
        """The learning rates of both groups in the current step; sets the momentum too."""
        point = self._points[min(self.last_epoch, len(self._points) - 1)]
        if point.momentum is not None:
            for group in self.optimizer.param_groups:
                if "betas" in group:
                    group["betas"] = (point.momentum, *group["betas"][1:])
                elif "momentum" in group:
                    group["momentum"] = point.momentum
        return [point.rest, point.encoder]

    def state_dict(self) -> dict[str, Any]:
        """The state in a checkpoint."""
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues after that step; the optimizer stores its current learning rates itself."""
        self.last_epoch = state_dict["last_epoch"]
