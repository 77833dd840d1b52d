"""Charts of a comparison."""

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from components.compare.candidates import Candidate
from components.compare.ranking import Ranked
from components.shared.report.chart_style import COLORS, INK, SOFT_INK, point_style, style

_COSTS: tuple[tuple[str, Callable[[Candidate], float]], ...] = (
    ("training, minutes", lambda one: one.train_minutes),
    ("parameters, millions", lambda one: one.parameters / 1e6),
    ("prediction, seconds per volume", lambda one: one.predict_seconds),
)


def dice_against_cost(ranked: Sequence[Ranked]) -> Figure:
    """Plots mean validation Dice against training time, size and prediction time."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    plots = figure.subplots(1, len(_COSTS), sharey=True)
    for place, (axes, (name, cost)) in enumerate(zip(plots, _COSTS, strict=True)):
        style(axes, name, "" if place else "mean patient Dice, validation")
        for number, each in enumerate(ranked):
            color, marker = point_style(number)
            axes.plot(
                cost(each.candidate),
                each.candidate.dice,
                color=color,
                marker=marker,
                markersize=9,
                linestyle="none",
                label=each.candidate.label,
            )
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlim(0, 1.15 * max(cost(each.candidate) for each in ranked))
    handles, labels = plots[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def differences(ranked: Sequence[Ranked]) -> Figure:
    """Plots every patient's difference to the best model, with the mean and its interval."""
    others = [(each.candidate.label, each.against_best) for each in ranked if each.against_best]
    figure = Figure(figsize=(9.6, 0.6 * len(others) + 1.2))
    axes = style(figure.subplots(), f"patient Dice minus that of {ranked[0].candidate.label}")
    for row, (_, found) in enumerate(others):
        assert found
        points = [one - best for one, best in found.pairs.values()]
        axes.plot(points, [row + 0.18] * len(points), "o", color=COLORS[0], alpha=0.5)
        axes.plot([found.low, found.high], [row, row], color=INK, linewidth=3)
        axes.plot(found.difference, row, "D", color=INK)
    axes.axvline(0, color=SOFT_INK, linewidth=1)
    axes.set_yticks(range(len(others)), [label for label, _ in others])
    axes.set_ylim(len(others) - 0.4, -0.6)
    return figure
