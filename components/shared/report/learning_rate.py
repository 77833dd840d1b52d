"""What a search for the learning rate found, and its picture."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from components.shared.config import Record
from components.shared.report.chart_style import COLOURS, SOFT_INK, style
from components.shared.report.page import Block, Figures, Notice, Picture, draw

_MARGIN = 0.05  # of the curve's height


class Suggestion(Record):
    """A learning rate to train with.

    Attributes:
        learning_rate: The suggestion.
        valley: The learning rates between which the loss falls.
        valley_losses: The smoothed losses there.
        steepest: Where it falls most from one step to the next.
    """

    learning_rate: float
    valley: tuple[float, float]
    valley_losses: tuple[float, float]
    steepest: float


class LearningRateSearch(Record):
    """A sweep over learning rates, and what it suggests.

    Attributes:
        learning_rates: Of the steps, rising.
        losses: Of each step's batch, before its weights were changed.
        smoothed: The same without the batches' noise.
        suggestion: `None` where the loss does not fall.
        reason: Why, in sentences with numbers.
    """

    learning_rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: Suggestion | None
    reason: str


def search_blocks(search: LearningRateSearch) -> list[Block]:
    """A report's account of a search."""
    found = search.suggestion
    if not found:
        told: list[Block] = [Notice("bad", search.reason)]
    else:
        figures = (
            ("Suggested learning rate", f"{found.learning_rate:.2g}", "the middle of the valley"),
            ("Steepest fall", f"{found.steepest:.2g}", "for comparison"),
        )
        told = [Figures(figures), search.reason]
    if not search.losses:
        return told
    caption = (
        f"A mock training of {len(search.losses)} steps on a copy of the network, whose learning "
        "rate rose from each step to the next. Every point is the loss of a step's batch."
    )
    return [*told, Picture(draw(learning_rate_curve(search)), caption)]


def learning_rate_curve(search: LearningRateSearch) -> Figure:
    """Loss against learning rate, with valley, suggestion and steepest point."""
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    axes = style(figure.subplots(), "learning rate (log scale)", "loss")
    rates = search.learning_rates
    axes.set_xscale("log")
    axes.scatter(rates, search.losses, s=10, color=SOFT_INK, alpha=0.5, label="a step's batch")
    axes.plot(rates, search.smoothed, color=COLOURS[0], linewidth=2, label="smoothed")
    if search.suggestion:
        _mark(axes, search.suggestion)
    # not up to where it diverges, which would flatten the valley
    low, high = min(search.losses), max(search.losses[:10])
    axes.set_ylim(low - _MARGIN * (high - low), high + 4 * _MARGIN * (high - low))
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _mark(axes: Axes, found: Suggestion) -> None:
    axes.axvspan(*found.valley, color=COLOURS[0], alpha=0.08, label="valley")
    suggested = f"suggested: {found.learning_rate:.2g}"
    axes.axvline(found.learning_rate, color=COLOURS[1], linewidth=2, label=suggested)
    steepest = f"steepest: {found.steepest:.2g}"
    axes.axvline(found.steepest, color=COLOURS[2], linestyle="--", label=steepest)
