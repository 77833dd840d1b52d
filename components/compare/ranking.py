"""Order of the compared models, with their differences to the best."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from components.compare.candidates import Candidate
from components.shared.scoring.comparison import Comparison, compare


@dataclass(frozen=True)
class Ranked:
    """A model in the order of the comparison.

    Attributes:
        candidate: The model.
        against_best: Comparison with the best model as reference; `None` for the best model
            itself, and if there is a single patient.
    """

    candidate: Candidate
    against_best: Comparison | None


def rank(candidates: Sequence[Candidate], confidence: float) -> list[Ranked]:
    """Orders models by mean patient Dice on the validation patients, the best first.

    Of equal models the smaller network is first, then the first by name.

    The scores that are compared also decide which model is the best, so any pair could have been
    looked at: Bonferroni's correction is for all pairs.

    Args:
        candidates: One or more models, all with scores of the same patients.
        confidence: Confidence of the two-sided intervals of all differences together.
    """
    order = sorted(candidates, key=lambda one: (-one.dice, one.parameters, one.label))
    best = order[0]
    pairs = math.comb(len(order), 2) or 1
    one_sided = 1 - (1 - confidence) / 2 / pairs
    return [
        Ranked(
            one,
            compare(one.scores, best.scores, one_sided)
            if one is not best and len(one.patients) > 1
            else None,
        )
        for one in order
    ]


def is_clear(other: Ranked) -> bool:
    """Returns True if the interval of a model's difference to the best lies below zero."""
    return other.against_best is not None and other.against_best.high < 0
