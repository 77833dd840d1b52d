"""Result of a learning-rate search, and its chart."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from components.shared.config import Record
from components.shared.report.chart_style import COLORS, SOFT_INK, style
from components.shared.report.page import Block, Figures, Notice, Picture, draw

_MARGIN = 0.05  # fraction of the curve's height


class Suggestion(Record):
    """A learning rate to train with.

    Attributes:
        learning_rate: The suggestion.
        valley: Learning rates between which the loss falls.
        valley_losses: Smoothed losses at both ends of the valley.
        steepest: Learning rate at the largest fall from one step to the next.
    """

    learning_rate: float
    valley: tuple[float, float]
    valley_losses: tuple[float, float]
    steepest: float


class LearningRateSearch(Record):
    """A sweep over learning rates with its suggestion.

    Attributes:
        learning_rates: One per step, rising.
        losses: Loss of each step's batch, before its update of the weights.
        smoothed: Losses without the noise of the batches.
        suggestion: `None` if the loss does not fall.
        reason: Explanation in sentences with numbers.
    """

    learning_rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: Suggestion | None
    reason: str


def search_blocks(search: LearningRateSearch) -> list[Block]:
    """Returns the blocks of a report that describe a search."""
    found = search.suggestion
    if not found:
        blocks: list[Block] = [Notice("bad", search.reason)]
    else:
        figures = (
            ("Suggested learning rate", f"{found.learning_rate:.2g}", "middle of the valley"),
            ("Steepest fall", f"{found.steepest:.2g}", "for comparison"),
        )
        blocks = [Figures(figures), search.reason]
    if not search.losses:
        return blocks
    caption = (
        f"A trial run of {len(search.losses)} steps on a copy of the network, with a "
        "learning rate that rises at each step. Every point is the loss of one step's batch."
    )
    return [*blocks, Picture(draw(learning_rate_curve(search)), caption)]


def learning_rate_curve(search: LearningRateSearch) -> Figure:
    """Plots loss against learning rate, with valley, suggestion and steepest point."""
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    axes = style(figure.subplots(), "learning rate (log scale)", "loss")
    rates = search.learning_rates
    axes.set_xscale("log")
    axes.scatter(rates, search.losses, s=10, color=SOFT_INK, alpha=0.5, label="a step's batch")
    axes.plot(rates, search.smoothed, color=COLORS[0], linewidth=2, label="smoothed")
    if search.suggestion:
        _mark(axes, search.suggestion)
    # without the divergence at the end, which would flatten the valley
    low, high = min(search.losses), max(search.losses[:10])
    axes.set_ylim(low - _MARGIN * (high - low), high + 4 * _MARGIN * (high - low))
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _mark(axes: Axes, found: Suggestion) -> None:
    axes.axvspan(*found.valley, color=COLORS[0], alpha=0.08, label="valley")
    suggested = f"suggested: {found.learning_rate:.2g}"
    axes.axvline(found.learning_rate, color=COLORS[1], linewidth=2, label=suggested)
    steepest = f"steepest: {found.steepest:.2g}"
    axes.axvline(found.steepest, color=COLORS[2], linestyle="--", label=steepest)
