"""The drawings of the evaluation report."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from components.shared.report.chart_style import COLOURS, SOFT_INK, style
from components.shared.scoring.scores import PatientScore, Reliability

_MARKERS = "osD^vP"

Epoch = Mapping[str, float]


def dice_by_size(scores: Sequence[PatientScore]) -> Figure:
    """Patient Dice against true tumour size, one colour a site; no patient without tumour."""
    figure = Figure(figsize=(9.6, 3.8))
    axes = style(figure.subplots(), "true tumour pixels (log scale)", "patient Dice")
    for index, site in enumerate(sorted({score.site for score in scores})):
        points = [score for score in scores if score.site == site and score.tumour_pixels]
        axes.scatter(
            [score.tumour_pixels for score in points],
            [score.dice for score in points],
            s=42,
            color=COLOURS[index % len(COLOURS)],
            marker=_MARKERS[index // len(COLOURS) % len(_MARKERS)],
            alpha=0.85,
            edgecolors="white",
            linewidths=0.6,
            label=f"{site} ({len(points)})",
        )
    _log_scale(axes, [score.tumour_pixels for score in scores if score.tumour_pixels])
    axes.set_ylim(-0.03, 1.03)
    axes.legend(title="site (patients)", frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def dice_by_group(groups: Mapping[str, Sequence[PatientScore]]) -> Figure:
    """Patient Dice of each group: every patient a point, with box and median."""
    figure = Figure(figsize=(9.6, 0.45 * len(groups) + 1.2))
    axes = style(figure.subplots(), "patient Dice")
    for row, scores in enumerate(groups.values()):
        dice = [score.dice for score in scores]
        axes.boxplot(
            dice,
            positions=[row],
            orientation="horizontal",
            widths=0.5,
            showfliers=False,
            boxprops={"color": SOFT_INK},
            whiskerprops={"color": SOFT_INK},
            capprops={"color": SOFT_INK},
            medianprops={"color": COLOURS[1], "linewidth": 2},
        )
        axes.scatter(dice, row + _spread(len(dice)), s=20, color=COLOURS[0], alpha=0.7, zorder=3)
    names = [f"{name.replace('/', ' ')} ({len(scores)})" for name, scores in groups.items()]
    axes.set_yticks(range(len(groups)), names)
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.set_xlim(-0.03, 1.03)
    return figure


def reliability(curve: Reliability) -> Figure:
    """Share of tumour against predicted probability, and how many voxels each bin has."""
    figure = Figure(figsize=(5.2, 5.2), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    style(upper, y_label="share of voxels that are tumour")
    style(lower, "predicted probability", "voxels (log)")
    filled = np.flatnonzero(curve.voxels)
    voxels = np.array(curve.voxels)[filled]
    upper.plot([0, 1], [0, 1], color=SOFT_INK, linestyle="--", linewidth=1, label="perfect")
    upper.plot(
        np.array(curve.probability)[filled] / voxels,
        np.array(curve.tumour)[filled] / voxels,
        color=COLOURS[0],
        marker="o",
        label="model",
    )
    upper.set_xlim(0, 1)
    upper.set_ylim(0, 1)
    upper.legend(frameon=False)
    width = 1 / len(curve.voxels)
    lower.bar((filled + 0.5) * width, voxels, width=width * 0.9, color=COLOURS[0], log=True)
    return figure


def training_curves(history: Sequence[Epoch]) -> Figure:
    """Loss, validation Dice and learning rate by epoch, as far as the history holds them."""
    figure = Figure(figsize=(10, 3), layout="constrained")
    losses, dice, rate = figure.subplots(1, 3)
    labels = {"train_loss": "train", "validation_loss": "validation"}
    _lines(style(losses, "epoch", "loss"), history, labels)
    _lines(style(dice, "epoch", "validation Dice"), history, {"validation_dice": "validation"})
    _lines(style(rate, "epoch", "learning rate"), history, {"learning_rate": "train"})
    losses.legend(frameon=False)
    dice.set_ylim(0, 1)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    return figure


def _log_scale(axes: Axes, values: Sequence[float]) -> None:
    axes.set_xscale("log")
    if values:
        axes.set_xlim(min(values) / 1.6, max(values) * 1.6)  # at least one of 1, 2, 5 is inside
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _lines(axes: Axes, history: Sequence[Epoch], labels: Mapping[str, str]) -> None:
    for (name, label), colour in zip(labels.items(), COLOURS, strict=False):
        points = [(row["epoch"], row[name]) for row in history if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, marker=".", label=label)


def _spread(count: int) -> npt.NDArray[np.float64]:
    # points of one group beside each other, the same way each time
    return np.resize(np.array([0.0, 0.13, -0.13, 0.06, -0.06]), count)
