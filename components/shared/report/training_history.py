"""History of a training run, for the reports."""

from collections.abc import Mapping
from typing import Self

from components.shared.config import Record
from components.shared.report.learning_rate import LearningRateSearch


class TrainingHistory(Record):
    """Figures of a network's training by epoch.

    Attributes:
        epochs: One mapping per validated epoch, from names of figures to values.
        exported: Number of the epoch with the exported weights; `None` without epochs.
        learning_rate_search: Search that chose the learning rate; `None` if the recipe sets it.
        start: Weights that the network started from, in words; empty if they were random.
        flair: History of the second network, for scans without a sequence, if there is one.
        members: Histories of an ensemble's members, by label.
    """

    epochs: tuple[dict[str, float], ...] = ()
    exported: int | None = None
    learning_rate_search: LearningRateSearch | None = None
    start: str = ""
    flair: Self | None = None
    members: Mapping[str, Self] = {}
