"""Charts of the evaluation report."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from components.shared.report.chart_style import COLORS, SOFT_INK, style
from components.shared.scoring.scores import Reliability

Epoch = Mapping[str, float]


def reliability(curve: Reliability) -> Figure:
    """Plots fraction of tumour against predicted probability, with the voxels of each bin."""
    figure = Figure(figsize=(5.2, 5.2), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    style(upper, y_label="fraction of voxels with tumour")
    style(lower, "predicted probability", "voxels (log)")
    filled = np.flatnonzero(curve.voxels)
    voxels = np.array(curve.voxels)[filled]
    upper.plot([0, 1], [0, 1], color=SOFT_INK, linestyle="--", linewidth=1, label="perfect")
    upper.plot(
        np.array(curve.probability)[filled] / voxels,
        np.array(curve.tumour)[filled] / voxels,
        color=COLORS[0],
        marker="o",
        label="model",
    )
    upper.set_xlim(0, 1)
    upper.set_ylim(0, 1)
    upper.legend(frameon=False)
    width = 1 / len(curve.voxels)
    lower.bar((filled + 0.5) * width, voxels, width=width * 0.9, color=COLORS[0], log=True)
    return figure


def training_curves(history: Sequence[Epoch]) -> Figure:
    """Plots loss, validation Dice and learning rate by epoch, as far as the history has them."""
    figure = Figure(figsize=(10, 3), layout="constrained")
    losses, dice, rate = figure.subplots(1, 3)
    labels = {"train_loss": "train", "validation_loss": "validation"}
    targets = _targets(history)
    _lines(style(losses, "epoch", "loss"), history, labels)
    _lines(style(dice, "epoch", "validation Dice"), history, {"validation_dice": "mean", **targets})
    _lines(style(rate, "epoch", "learning rate"), history, {"learning_rate": "train"})
    losses.legend(frameon=False)
    if targets:
        dice.legend(frameon=False)
    dice.set_ylim(0, 1)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    return figure


def _targets(history: Sequence[Epoch]) -> dict[str, str]:
    """Returns the figures of each of several targets, with its name."""
    end = "/validation_dice"
    return {name: name.removesuffix(end) for row in history for name in row if name.endswith(end)}


def _lines(axes: Axes, history: Sequence[Epoch], labels: Mapping[str, str]) -> None:
    for (name, label), color in zip(labels.items(), COLORS, strict=False):
        points = [(row["epoch"], row[name]) for row in history if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), color=color, marker=".", label=label)
