"""Self-contained HTML pages: one look for the reports of all steps."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from components.shared.dataset.volumes import Voxels
from components.shared.printable import printable
from components.shared.report.chart_style import PAGE_COLOURS

Cell = str | float | int | None


def _visible(value: object) -> object:
    return printable(value) if type(value) is str else value  # not what is HTML already


_TEMPLATE = jinja2.Environment(
    autoescape=True,
    finalize=_visible,
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    trim_blocks=True,
    lstrip_blocks=True,
).get_template("page.html.jinja")


@dataclass(frozen=True)
class Figures:
    """Numbers in large print: (label, value, note below)."""

    items: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Table:
    """A table; a click on a column's head sorts it. Numbers are aligned right.

    Attributes:
        columns: Heads.
        rows: Cells; those beyond `most_rows` are left out, and the page says so.
        most_rows: A page of a hundred thousand rows opens in no browser.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    most_rows: int = 1000


@dataclass(frozen=True)
class Picture:
    """A drawing or an image made by `draw` or `photograph`, with a caption."""

    source: str
    caption: str
    width_px: int | None = None


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side, wrapping."""

    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Notice:
    """A sentence that must be seen; `kind` is `good`, `warning` or `bad`."""

    kind: str
    text: str


Block = str | Figures | Table | Picture | Gallery | Notice


@dataclass(frozen=True)
class Section:
    """A headed part of a page; a plain string is a paragraph."""

    title: str
    blocks: Sequence[Block]


def render_page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Renders a page that needs no network: styles, pictures and script are inside.

    All text is escaped, control characters visibly: names come from the user's data.
    """
    return _TEMPLATE.render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        kind=_kind,
        show=show,
        number=_number,
        numeric=_numeric,
        colours=PAGE_COLOURS,
    )


def show(cell: Cell) -> str:
    """A cell as people write it: a number with the digits that matter, a dash for none."""
    if cell is None or cell != cell:
        return "-"
    if not isinstance(cell, float):
        return f"{cell:,}" if isinstance(cell, int) else cell
    size = abs(cell)
    if 0 < size < 0.01:
        return f"{cell:.2g}"
    return f"{cell:,.{3 if size < 10 else 1 if size < 1000 else 0}f}"


def draw(figure: Figure) -> str:
    """A matplotlib figure as a data URI (SVG)."""
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "brainseg"}):  # equal figures, equal bytes
        figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue().encode()).decode()


def photograph(pixels: Voxels) -> str:
    """An image (height x width, or x 3, uint8) as a data URI (WebP)."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, format="WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def _kind(block: Block) -> str:
    return type(block).__name__


def _number(cell: Cell) -> bool:
    return isinstance(cell, int | float)


def _numeric(table: Table, column: int) -> bool:
    return any(_number(row[column]) for row in table.rows[: table.most_rows])
