"""Comparison of two models on the same patients."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import nct
from scipy.stats import t as student

from components.shared.config import Record
from components.shared.scoring.groups import group
from components.shared.scoring.intervals import mean_interval, standard_error
from components.shared.scoring.patients import by_patient
from components.shared.scoring.scores import PatientScore

DETECTION_POWER = 0.8  # at which a difference counts as detectable


class GroupDifference(Record):
    """Mean patient Dice in a group, e.g. `site/CS` or `size/small`.

    Attributes:
        standard_error: Standard error of the mean difference; `None` for one patient.
    """

    group: str
    patients: int
    candidate: float
    reference: float
    difference: float
    standard_error: float | None


class Comparison(Record):
    """Candidate and reference on the same patients; differences are candidate minus reference.

    Attributes:
        candidate: Mean patient Dice of the candidate.
        reference: Mean patient Dice of the reference.
        difference: Mean difference.
        standard_error: Standard error of the mean difference.
        confidence: Confidence of each bound alone.
        low: One-sided lower bound of the mean difference, by which non-inferiority is judged.
        high: One-sided upper bound of the mean difference.
        groups: Differences by site and tumour-size third.
        pairs: Dice of candidate and reference by volume name; by the patient's name for means over
            several scans.
    """

    candidate: float
    reference: float
    difference: float
    standard_error: float
    confidence: float
    low: float
    high: float
    groups: tuple[GroupDifference, ...]
    pairs: Mapping[str, tuple[float, float]]

    @property
    def identical(self) -> bool:
        """`True` if both score the same on every patient."""
        return all(candidate == reference for candidate, reference in self.pairs.values())

    @property
    def detectable(self) -> float:
        """Least true difference that such a comparison detects with a power of 80 %.

        Detected means that the one-sided bound excludes zero. The usual formula uses the number
        of patients and the spread of the differences seen here.
        """
        reach = student.ppf([self.confidence, DETECTION_POWER], len(self.pairs) - 1).sum()
        return float(reach * self.standard_error)

    def chance_of_equal(self, margin: float) -> float:
        """Returns the probability that an equal model is found non-inferior by a margin.

        The power of the one-sided t test (by the noncentral t distribution) at a true difference
        of zero, with the number of patients and the spread of the differences seen here.
        """
        if self.standard_error == 0:
            return float(margin > 0)
        degrees = len(self.pairs) - 1
        bar = student.ppf(self.confidence, degrees)
        return float(nct.sf(bar, degrees, margin / self.standard_error))


def compare(
    candidate: Sequence[PatientScore], reference: Sequence[PatientScore], confidence: float
) -> Comparison:
    """Compares two models patient by patient.

    Args:
        candidate: Scores of at least two patients. Several scans of a patient are averaged first.
        reference: Scores of the same volumes, in any order.
        confidence: Confidence of the one-sided bounds of the mean difference.
    """
    candidate, reference = by_patient(candidate), by_patient(reference)
    by_volume = {score.volume: score.dice for score in reference}
    pairs = {score.volume: (score.dice, by_volume[score.volume]) for score in candidate}
    dice = np.array(list(pairs.values()))
    differences = (dice[:, 0] - dice[:, 1]).tolist()
    low, high = mean_interval(differences, confidence=2 * confidence - 1, bounds=(-1.0, 1.0))
    return Comparison(
        candidate=float(dice[:, 0].mean()),
        reference=float(dice[:, 1].mean()),
        difference=float(np.mean(differences)),
        standard_error=standard_error(differences),
        confidence=confidence,
        low=low,
        high=high,
        groups=tuple(
            _group_difference(name, [pairs[score.volume] for score in scores])
            for name, scores in group(candidate).items()
        ),
        pairs=pairs,
    )


def _group_difference(name: str, pairs: Sequence[tuple[float, float]]) -> GroupDifference:
    candidate, reference = np.mean(pairs, axis=0).tolist()
    differences = [one - other for one, other in pairs]
    return GroupDifference(
        group=name,
        patients=len(pairs),
        candidate=candidate,
        reference=reference,
        difference=float(np.mean(differences)),
        standard_error=standard_error(differences) if len(pairs) > 1 else None,
    )
