"""The order of compared models, and how far each is from the best."""

from collections.abc import Sequence
from dataclasses import dataclass

from components.compare.candidates import Contender
from components.shared.scoring.comparison import Comparison, compare


@dataclass(frozen=True)
class Ranked:
    """A model in the order of the comparison.

    Attributes:
        contender: The model.
        against_best: It (the candidate) and the best one (the reference) on the same patients;
            `None` of the best one itself, and where there is a single patient.
    """

    contender: Contender
    against_best: Comparison | None


def rank(contenders: Sequence[Contender], confidence: float) -> list[Ranked]:
    """Orders models by mean patient Dice on the validation patients, the best first.

    Of equal ones the smaller network goes first, then the earlier in the alphabet.

    Args:
        contenders: At least one, all of the same patients.
        confidence: Of the two-sided intervals of the differences.
    """
    order = sorted(contenders, key=lambda one: (-one.dice, one.parameters, one.label))
    best = order[0]
    one_sided = (1 + confidence) / 2
    return [
        Ranked(
            one,
            compare(one.scores, best.scores, one_sided)
            if one is not best and len(one.scores) > 1
            else None,
        )
        for one in order
    ]


def is_clear(second: Ranked) -> bool:
    """Whether the interval of a model's difference to the best one lies below zero."""
    return second.against_best is not None and second.against_best.high < 0
