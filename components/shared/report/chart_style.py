"""Colors and axes style that the charts and pages of all reports share."""

from matplotlib.axes import Axes

COLORS = ("#1f6feb", "#d1570a", "#1a7f37", "#8250df", "#bf3989", "#0b7285", "#9a6700", "#57606a")
INK = "#1c2430"
SOFT_INK = "#5d6b7e"
_GRID = "#e6eaef"
_FRAME = "#b3bdc9"
_MARKERS = "osD^vP"

PAGE_COLORS = {
    "ink": INK,
    "soft": SOFT_INK,
    "faint": _FRAME,
    "line": "#dfe4ea",
    "card": "#f6f8fa",
    "accent": COLORS[0],
    "good": COLORS[2],
    "warning": "#bf8700",
    "bad": "#cf222e",
}
"""Colors of the pages, by the name of their CSS variable in `page.html.jinja`."""


def point_style(number: int) -> tuple[str, str]:
    """Returns color and marker of a group; more groups than colors still differ."""
    marker = _MARKERS[number // len(COLORS) % len(_MARKERS)]
    return COLORS[number % len(COLORS)], marker


def style(axes: Axes, x_label: str = "", y_label: str = "") -> Axes:
    """Labels the axes and apply the common style."""
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FRAME)
    axes.tick_params(colors=INK, labelsize=9)
    return axes
