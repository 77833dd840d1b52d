"""Charts of the profile page."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from components.profile.attributes import Attribute
from components.profile.measures import Choice, Measures, Numbers
from components.shared.report.chart_style import COLORS, INK, SOFT_INK, style

_OTHERS = "other sites"
_ATTRIBUTE_COLUMNS = 6
_FEWEST_FOR_BOX = 5
_FEWEST_BARS = 4


def volume_histograms(measures: Measures) -> Figure:
    """Plots histograms of slices, tumour fraction and tumour size per volume, stacked by site."""
    figure = Figure(figsize=(10.6, 3.2), layout="constrained")
    slices, fraction, size = figure.subplots(1, 3)
    groups = _site_groups(measures)
    _stack(slices, measures.slices, groups, "slices per volume")
    _stack(fraction, measures.tumour_share, groups, "slices with tumour")
    fraction.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if measures.in_mm:
        _stack(size, measures.tumour_ml, groups, "tumour, ml")
    else:
        _stack(size, measures.tumour_pixels / 1000, groups, "tumour, thousand pixels")
    slices.set_ylabel("volumes", color=INK)
    figure.legend(
        *size.get_legend_handles_labels(), loc="outside upper center", ncols=9, frameon=False
    )
    return figure


def intensities_by_site(measures: Measures) -> Figure:
    """Plots boxes of the volumes' 99th percentiles by site, one panel per channel."""
    groups = _site_groups(measures)
    figure = Figure(figsize=(10.6, 0.8 + 0.36 * len(groups)), layout="constrained")
    channels = measures.channels.names
    panels = figure.subplots(1, len(channels), sharey=True, squeeze=False)[0]
    for index, (axes, channel) in enumerate(zip(panels, channels, strict=True)):
        _boxes(axes, measures.bright_intensity[:, index], groups)
        style(axes, f"{channel}: 99th percentile")
        axes.grid(axis="y", visible=False)
        axes.set_xlim(0, 260)
    return figure


def attribute_charts(attributes: Sequence[Attribute]) -> Figure:
    """Plots patients by value, one small chart per column."""
    rows = -(-len(attributes) // _ATTRIBUTE_COLUMNS)
    figure = Figure(figsize=(10.6, 1.75 * rows), layout="constrained")
    panels = figure.subplots(rows, _ATTRIBUTE_COLUMNS, squeeze=False).ravel()
    for axes, attribute in zip(panels, attributes, strict=False):
        _bars(axes, attribute)
    for axes in panels[len(attributes) :]:
        axes.set_visible(False)
    return figure


def _site_groups(measures: Measures) -> Mapping[str, Choice]:
    """Returns sites by size; sites beyond the number of colors form one group."""
    names, counts = np.unique(measures.site, return_counts=True)
    ordered = [str(names[index]) for index in np.argsort(-counts, kind="stable")]
    shown = ordered if len(ordered) <= len(COLORS) else ordered[: len(COLORS) - 1]
    groups = {site: measures.site == site for site in shown}
    if len(shown) < len(ordered):
        groups[_OTHERS] = ~np.isin(measures.site, shown)
    return groups


def _stack(axes: Axes, values: Numbers, groups: Mapping[str, Choice], label: str) -> None:
    axes.hist(
        [values[chosen] for chosen in groups.values()],
        bins=min(24, max(6, int(len(values) ** 0.5) * 2)),
        stacked=True,
        color=COLORS[: len(groups)],
        label=list(groups),
        edgecolor="white",
        linewidth=0.5,
    )
    style(axes, label)
    axes.grid(axis="x", visible=False)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))


def _boxes(axes: Axes, values: Numbers, groups: Mapping[str, Choice]) -> None:
    for row, (chosen, color) in enumerate(zip(groups.values(), COLORS, strict=False), start=1):
        if chosen.sum() < _FEWEST_FOR_BOX:
            axes.scatter(values[chosen], np.full(chosen.sum(), row), s=22, color=color)
        else:
            _box(axes, values[chosen], row, color)
    names = [f"{site} ({int(chosen.sum()):,})" for site, chosen in groups.items()]
    axes.set_yticks(range(1, len(names) + 1), names)
    axes.set_ylim(len(names) + 0.6, 0.4)


def _box(axes: Axes, values: Numbers, row: int, color: str) -> None:
    axes.boxplot(
        values,
        positions=[row],
        orientation="horizontal",
        widths=0.6,
        patch_artist=True,
        showfliers=False,  # too many points to draw; the table lists outliers
        boxprops={"facecolor": color, "edgecolor": color},
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
    bars = axes.bar(range(len(names)), list(attribute.counts.values()), color=COLORS[0])
    axes.bar_label(bars, fontsize=7, color=SOFT_INK, fmt="{:,.0f}")
    axes.margins(y=0.18)
    spare = max(0, _FEWEST_BARS - len(names)) / 2  # a single bar keeps its usual width
    axes.set_xlim(-0.6 - spare, len(names) - 0.4 + spare)
    axes.set_xticks(range(len(names)), names, fontsize=7)
