"""Self-contained HTML pages: blocks, tables and pictures of all reports."""

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import jinja2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from components.shared.dataset.volumes import Voxels
from components.shared.printable import printable
from components.shared.report.chart_style import PAGE_COLORS

Cell = str | float | int | None
Item = TypeVar("Item")


def _visible(value: object) -> object:
    return printable(value) if type(value) is str else value  # HTML stays as it is


_TEMPLATE = jinja2.Environment(
    autoescape=True,
    finalize=_visible,
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    trim_blocks=True,
    lstrip_blocks=True,
).get_template("page.html.jinja")


@dataclass(frozen=True)
class Figures:
    """Numbers in large print: (label, value, note below the value)."""

    items: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Table:
    """A table that a click on a column's head sorts. Numbers are aligned right.

    Attributes:
        columns: Heads of the columns.
        rows: Cells; the page mentions the rows beyond `most_rows`, but leaves them out.
        most_rows: Limit, because no browser opens a page of a hundred thousand rows.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    most_rows: int = 1000

    @classmethod
    def of(cls, items: Iterable[Item], columns: Mapping[str, Callable[[Item], Cell]]) -> "Table":
        """Makes a table with one row per item.

        Args:
            items: Rows, top to bottom.
            columns: Function from item to cell, by head of the column.
        """
        return cls(list(columns), [[cell(item) for cell in columns.values()] for item in items])


@dataclass(frozen=True)
class Picture:
    """A chart made by `draw` or an image made by `photograph`, with a caption."""

    source: str
    caption: str
    width_px: int | None = None


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side, wrapped into lines."""

    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Notice:
    """A highlighted sentence; `kind` is `good`, `warning` or `bad`."""

    kind: str
    text: str


Block = str | Figures | Table | Picture | Gallery | Notice


@dataclass(frozen=True)
class Section:
    """A part of a page with a heading; a plain string is a paragraph."""

    title: str
    blocks: Sequence[Block]


def render_page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Renders a page that needs no network: styles, pictures and script are inline.

    All text is escaped, and control characters become visible: names come from the user's data.
    """
    return _TEMPLATE.render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        show=show,
        numeric=_numeric,
        colors=PAGE_COLORS,
    )


def show(cell: Cell) -> str:
    """Formats a cell: numbers with three or four significant digits, a dash for `None` and NaN."""
    if cell is None or cell != cell:
        return "-"
    if not isinstance(cell, float):
        return f"{cell:,}" if isinstance(cell, int) else cell
    size = abs(cell)
    if 0 < size < 0.01:
        return f"{cell:.2g}"
    return f"{cell:,.{3 if size < 10 else 1 if size < 1000 else 0}f}"


def draw(figure: Figure) -> str:
    """Encodes a matplotlib figure as a data URI (SVG)."""
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "brainseg"}):  # equal figures, equal bytes
        figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue().encode()).decode()


def photograph(pixels: Voxels) -> str:
    """Encodes an image (uint8, height x width or height x width x 3) as a data URI (WebP)."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, format="WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def _numeric(table: Table, column: int) -> bool:
    return any(isinstance(row[column], int | float) for row in table.rows[: table.most_rows])
