"""What a training leaves for the reports."""

from typing import Self

from components.shared.config import Record
from components.shared.report.learning_rate import LearningRateSearch


class TrainingHistory(Record):
    """The course of the training of a network.

    Attributes:
        epochs: One mapping a validated epoch, from the names of figures to their values.
        exported: Number of the epoch whose weights are the model's; `None` without epochs.
        learning_rate_search: What chose the learning rate; `None` if the recipe did.
        flair: Of the second network, for scans that lack a sequence, where there is one.
    """

    epochs: tuple[dict[str, float], ...] = ()
    exported: int | None = None
    learning_rate_search: LearningRateSearch | None = None
    flair: Self | None = None
