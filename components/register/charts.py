"""Chart of a decision."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from components.shared.report.chart_style import COLORS, INK, SOFT_INK, style
from components.shared.scoring.comparison import Comparison

_UP, _DOWN = COLORS[0], COLORS[1]


def paired_differences(comparison: Comparison, champion: str, margin: float) -> Figure:
    """Plots each patient's champion and candidate Dice, and the mean difference with the margin.

    Args:
        comparison: Comparison of candidate and champion.
        champion: Name of the champion, e.g. `version 3`.
        margin: Margin of non-inferiority.
    """
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    lines, means = figure.subplots(1, 2)
    _draw_lines(style(lines, y_label="patient Dice"), comparison, champion)
    _draw_mean(style(means, "candidate minus champion, patient Dice"), comparison, margin)
    return figure


def _draw_lines(axes: Axes, comparison: Comparison, champion: str) -> None:
    for candidate, reference in comparison.pairs.values():
        axes.plot(
            [0, 1],
            [reference, candidate],
            color=_DOWN if candidate < reference else _UP,
            marker="o",
            markersize=4,
            linewidth=1.2,
            alpha=0.7,
        )
    axes.plot(
        [0, 1],
        [comparison.reference, comparison.candidate],
        color=INK,
        linewidth=3,
        marker="D",
        label="mean",
    )
    axes.set_xticks([0, 1], [champion, "candidate"])
    axes.set_xlim(-0.25, 1.25)
    axes.set_ylim(-0.03, 1.03)
    axes.legend(frameon=False, loc="lower left")


def _draw_mean(axes: Axes, comparison: Comparison, margin: float) -> None:
    differences = [candidate - reference for candidate, reference in comparison.pairs.values()]
    for place, difference in zip(_spread(len(differences)), differences, strict=True):
        color = _DOWN if difference < 0 else _UP
        axes.plot(difference, place, color=color, marker="o", markersize=5, alpha=0.6)
    axes.plot([comparison.low, comparison.high], [0, 0], color=INK, linewidth=3)
    for end in (comparison.low, comparison.high):
        axes.plot(end, 0, color=INK, marker="|", markersize=14, markeredgewidth=3)
    axes.plot(comparison.difference, 0, color=INK, marker="D", markersize=8)
    axes.axvline(0, color=SOFT_INK, linewidth=1)
    axes.axvline(-margin, color=COLORS[4], linestyle="--", linewidth=1.5, label="margin")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_yticks([0, 1.5], ["mean and its\nbounds", "patients"])
    axes.set_ylim(-0.7, 2.2)
    axes.grid(axis="y", visible=False)
    axes.legend(frameon=False, loc="upper left")


def _spread(count: int) -> list[float]:
    # spread vertically, in the same order each time, so that equal differences stay apart
    return [1.5 + 0.5 * ((number * 0.618) % 1 - 0.5) for number in range(count)]
