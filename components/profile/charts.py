"""The drawings of the profile page."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from components.profile.attributes import Attribute
from components.profile.measures import Choice, Measures, Numbers
from components.shared.dataset.volumes import CHANNELS
from components.shared.report.chart_style import COLOURS, INK, SOFT_INK, style

_OTHERS = "other sites"
_ATTRIBUTE_COLUMNS = 6
_FEWEST_FOR_BOX = 5
_FEWEST_BARS = 4


def volume_histograms(measures: Measures) -> Figure:
    """Slices, tumour share and tumour size per volume, stacked by site."""
    figure = Figure(figsize=(10.6, 3.2), layout="constrained")
    slices, share, size = figure.subplots(1, 3)
    groups = _site_groups(measures)
    _stack(slices, measures.slices, groups, "slices per volume")
    _stack(share, measures.tumour_share, groups, "slices with tumour")
    share.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _stack(size, measures.tumour_pixels / 1000, groups, "tumour, thousand pixels")
    slices.set_ylabel("volumes", color=INK)
    figure.legend(
        *size.get_legend_handles_labels(), loc="outside upper center", ncols=9, frameon=False
    )
    return figure


def intensities_by_site(measures: Measures) -> Figure:
    """Boxes of the volumes' brightest intensities (99th percentile), a panel a channel."""
    groups = _site_groups(measures)
    figure = Figure(figsize=(10.6, 0.8 + 0.36 * len(groups)), layout="constrained")
    panels = figure.subplots(1, len(CHANNELS), sharey=True)
    for index, (axes, channel) in enumerate(zip(panels, CHANNELS, strict=True)):
        _boxes(axes, measures.bright_intensity[:, index], groups)
        style(axes, f"{channel}: 99th percentile")
        axes.grid(axis="y", visible=False)
        axes.set_xlim(0, 260)
    return figure


def attribute_charts(attributes: Sequence[Attribute]) -> Figure:
    """A small chart for each column: patients by value."""
    rows = -(-len(attributes) // _ATTRIBUTE_COLUMNS)
    figure = Figure(figsize=(10.6, 1.75 * rows), layout="constrained")
    panels = figure.subplots(rows, _ATTRIBUTE_COLUMNS, squeeze=False).ravel()
    for axes, attribute in zip(panels, attributes, strict=False):
        _bars(axes, attribute)
    for axes in panels[len(attributes) :]:
        axes.set_visible(False)
    return figure


def _site_groups(measures: Measures) -> Mapping[str, Choice]:
    """Sites by size; those beyond the number of colours are put together."""
    names, counts = np.unique(measures.site, return_counts=True)
    ordered = [str(names[index]) for index in np.argsort(-counts, kind="stable")]
    shown = ordered if len(ordered) <= len(COLOURS) else ordered[: len(COLOURS) - 1]
    groups = {site: measures.site == site for site in shown}
    if len(shown) < len(ordered):
        groups[_OTHERS] = ~np.isin(measures.site, shown)
    return groups


def _stack(axes: Axes, values: Numbers, groups: Mapping[str, Choice], label: str) -> None:
    axes.hist(
        [values[chosen] for chosen in groups.values()],
        bins=min(24, max(6, int(len(values) ** 0.5) * 2)),
        stacked=True,
        color=COLOURS[: len(groups)],
        label=list(groups),
        edgecolor="white",
        linewidth=0.5,
    )
    style(axes, label)
    axes.grid(axis="x", visible=False)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))


def _boxes(axes: Axes, values: Numbers, groups: Mapping[str, Choice]) -> None:
    for row, (chosen, colour) in enumerate(zip(groups.values(), COLOURS, strict=False), start=1):
        if chosen.sum() < _FEWEST_FOR_BOX:
            axes.scatter(values[chosen], np.full(chosen.sum(), row), s=22, color=colour)
        else:
            _box(axes, values[chosen], row, colour)
    names = [f"{site} ({int(chosen.sum()):,})" for site, chosen in groups.items()]
    axes.set_yticks(range(1, len(names) + 1), names)
    axes.set_ylim(len(names) + 0.6, 0.4)


def _box(axes: Axes, values: Numbers, row: int, colour: str) -> None:
    axes.boxplot(
        values,
        positions=[row],
        orientation="horizontal",
        widths=0.6,
        patch_artist=True,
        showfliers=False,  # a hundred thousand points are no drawing; the table names outliers
        boxprops={"facecolor": colour, "edgecolor": colour},
        medianprops={"color": "white", "linewidth": 1.6},
        whiskerprops={"color": SOFT_INK},
        capprops={"color": SOFT_INK},
    )


def _bars(axes: Axes, attribute: Attribute) -> None:
    style(axes)
    axes.set_title(attribute.column, fontsize=8, color=INK)
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    names = [name if len(name) < 10 else name[:8] + ".." for name in attribute.counts]
    bars = axes.bar(range(len(names)), list(attribute.counts.values()), color=COLOURS[0])
    axes.bar_label(bars, fontsize=7, color=SOFT_INK, fmt="{:,.0f}")
    axes.margins(y=0.18)
    spare = max(0, _FEWEST_BARS - len(names)) / 2  # one bar alone is not a wall
    axes.set_xlim(-0.6 - spare, len(names) - 0.4 + spare)
    axes.set_xticks(range(len(names)), names, fontsize=7)
