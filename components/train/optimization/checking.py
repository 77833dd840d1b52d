"""Checks of a recipe's loss, optimizer and schedule before a run."""

import torch
from torch import nn

from components.train.optimization.learning_rates import learning_rates
from components.train.optimization.losses import BatchLoss
from components.train.optimization.optimizers import build_optimizer
from components.train.recipe import Recipe

_STEPS_PER_EPOCH = 10  # of the trial schedule; the real number depends on the data


def check_optimization(recipe: Recipe, name: str) -> None:
    """Builds and tries the loss, the optimizer and the schedule of the recipe of this name.

    Raises:
        UserError: If one of them is unknown, has wrong options or fails.
    """
    settings = recipe.optimizer
    BatchLoss(settings.loss, f"{name}.optimizer.loss")
    rest, encoder = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    build_optimizer(settings, [rest], [encoder], f"{name}.optimizer")
    steps = _STEPS_PER_EPOCH * recipe.schedule.epochs
    learning_rates(recipe.schedule, settings, steps, f"{name}.schedule")
