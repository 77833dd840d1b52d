"""One look for all reports: the colours of drawings and pages."""

from matplotlib.axes import Axes

COLOURS = ("#1f6feb", "#d1570a", "#1a7f37", "#8250df", "#bf3989", "#0b7285", "#9a6700", "#57606a")
INK = "#1c2430"
SOFT_INK = "#5d6b7e"
_GRID = "#e6eaef"
_FRAME = "#b3bdc9"
_MARKERS = "osD^vP"

PAGE_COLOURS = {
    "ink": INK,
    "soft": SOFT_INK,
    "faint": _FRAME,
    "line": "#dfe4ea",
    "card": "#f6f8fa",
    "accent": COLOURS[0],
    "good": COLOURS[2],
    "warning": "#bf8700",
    "bad": "#cf222e",
}
"""The colours of the pages; `page.html.jinja` has them as CSS variables of these names."""


def point_style(number: int) -> tuple[str, str]:
    """Colour and marker of the points of a group: more groups than colours still differ."""
    marker = _MARKERS[number // len(COLOURS) % len(_MARKERS)]
    return COLOURS[number % len(COLOURS)], marker


def style(axes: Axes, x_label: str = "", y_label: str = "") -> Axes:
    """Gives axes their labels and the common look."""
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FRAME)
    axes.tick_params(colors=INK, labelsize=9)
    return axes
