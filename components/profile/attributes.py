"""Statistics over patients of the columns of the patient table."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.ticker import MaxNLocator
from pydantic import Field

from components.profile.measures import Quantiles, quantiles
from components.shared.config import Record
from components.shared.dataset.manifest import Manifest
from components.shared.reading.tcga import ATTRIBUTES

Value = float | str | None

_MOST_VALUES = 12  # a column with more distinct numbers is a measurement, not a code


class Attribute(Record):
    """Statistics of one column.

    Attributes:
        meaning: Description; empty for a column that the public data set does not have.
        kind: `codes` and `text` have counts, `numbers` have counts of bins and quantiles.
        filled: Number of patients with a value.
        counts: Number of patients by value, for text only the most frequent values. Numbers
            are counted in bins of equal width under the lower end of each.
    """

    column: str
    meaning: str
    kind: Literal["codes", "numbers", "text"]
    filled: int
    empty: int
    counts: dict[str, int] = Field(default_factory=dict)
    quantiles: Quantiles | None = None


def describe_attributes(manifest: Manifest) -> list[Attribute]:
    """Computes statistics of every column, those of the public data set first."""
    people = {entry.patient: entry.attributes for entry in manifest.volumes}
    found = {column: None for attributes in people.values() for column in attributes}
    known = [column for column in ATTRIBUTES if column in found]
    others = sorted(found.keys() - set(ATTRIBUTES))
    return [
        _describe(column, [attributes.get(column) for attributes in people.values()])
        for column in [*known, *others]
    ]


def _describe(column: str, cells: Sequence[Value]) -> Attribute:
    values = [cell for cell in cells if cell is not None]
    numbers = [value for value in values if isinstance(value, float)]
    counted = Counter(f"{value:g}" if isinstance(value, float) else value for value in values)
    kind: Literal["codes", "numbers", "text"] = "text"
    counts = dict(sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:_MOST_VALUES])
    if len(numbers) == len(values):
        whole = all(number.is_integer() for number in numbers)
        kind = "codes" if whole and len(counted) <= _MOST_VALUES else "numbers"
        by_value = dict(sorted(counted.items(), key=lambda item: float(item[0])))
        counts = by_value if kind == "codes" else _binned(numbers)
    return Attribute(
        column=column,
        meaning=ATTRIBUTES.get(column, ""),
        kind=kind,
        filled=len(values),
        empty=len(cells) - len(values),
        counts=counts,
        quantiles=quantiles(numbers) if kind == "numbers" else None,
    )


def _binned(numbers: Sequence[float]) -> dict[str, int]:
    edges = MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(min(numbers), max(numbers))
    counts, _ = np.histogram(numbers, edges)
    return {f"{edge:g}": int(count) for edge, count in zip(edges[:-1], counts, strict=True)}
