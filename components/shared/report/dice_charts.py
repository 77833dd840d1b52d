"""Charts of patient Dice that several reports show."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from components.shared.report.chart_style import COLORS, SOFT_INK, point_style, style
from components.shared.scoring.groups import tumour_sizes
from components.shared.scoring.scores import PatientScore


def dice_by_size(scores: Sequence[PatientScore]) -> Figure:
    """Plots patient Dice against true tumour size, colored by site, without empty patients."""
    figure = Figure(figsize=(9.6, 3.8))
    unit, sizes = tumour_sizes(scores)
    axes = style(figure.subplots(), f"true tumour {unit} (log scale)", "patient Dice")
    for index, site in enumerate(sorted({score.site for score in scores})):
        points = [score for score in scores if score.site == site and score.tumour_pixels]
        color, marker = point_style(index)
        axes.scatter(
            [sizes[score.volume] for score in points],
            [score.dice for score in points],
            s=42,
            color=color,
            marker=marker,
            alpha=0.85,
            edgecolors="white",
            linewidths=0.6,
            label=f"{site} ({len(points)})",
        )
    _log_scale(axes, [size for size in sizes.values() if size])
    axes.set_ylim(-0.03, 1.03)
    axes.legend(title="site (patients)", frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def dice_by_group(groups: Mapping[str, Sequence[PatientScore]]) -> Figure:
    """Plots patient Dice of each group: a point per patient, with box and median."""
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
            medianprops={"color": COLORS[1], "linewidth": 2},
        )
        axes.scatter(dice, row + _spread(len(dice)), s=20, color=COLORS[0], alpha=0.7, zorder=3)
    names = [f"{name.replace('/', ' ')} ({len(scores)})" for name, scores in groups.items()]
    axes.set_yticks(range(len(groups)), names)
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.set_xlim(-0.03, 1.03)
    return figure


def _log_scale(axes: Axes, values: Sequence[float]) -> None:
    axes.set_xscale("log")
    if values:
        axes.set_xlim(min(values) / 1.6, max(values) * 1.6)  # at least one of 1, 2, 5 is inside
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.12g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _spread(count: int) -> npt.NDArray[np.float64]:
    # points of one group lie next to each other, in the same order each time
    return np.resize(np.array([0.0, 0.13, -0.13, 0.06, -0.06]), count)
