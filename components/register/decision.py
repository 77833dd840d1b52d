"""Whether a candidate replaces the champion: arithmetic on scores of the same patients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from components.register.settings import RegisterSettings
from components.shared.errors import UserError
from components.shared.scoring.groups import group
from components.shared.scoring.intervals import mean_interval
from components.shared.scoring.metrics import BASELINE_SUFFIX
from components.shared.scoring.scores import PatientScore

_FEWEST_PATIENTS = 2  # no interval can be had from fewer
_HEADLINES = ("patient_dice_mean", "pooled_dice")  # both must beat an all-empty prediction


@dataclass(frozen=True)
class GroupDifference:
    """Mean patient Dice in a group, e.g. `site/CS` or `size/small`.

    Attributes:
        decides: Whether the group has enough patients to stop a promotion.
    """

    group: str
    patients: int
    candidate: float
    champion: float
    decides: bool

    @property
    def difference(self) -> float:
        """Candidate minus champion."""
        return self.candidate - self.champion


@dataclass(frozen=True)
class Comparison:
    """Candidate and champion on the same patients.

    Attributes:
        candidate: Mean patient Dice of the candidate.
        champion: Mean patient Dice of the champion.
        low: Lower end of the bootstrap interval of the mean difference.
        high: Upper end.
        groups: Differences by site and tumour-size third.
        pairs: Dice of candidate and champion under the volume's name.
    """

    candidate: float
    champion: float
    low: float
    high: float
    groups: tuple[GroupDifference, ...]
    pairs: Mapping[str, tuple[float, float]]

    @property
    def difference(self) -> float:
        """Mean of candidate minus champion."""
        return self.candidate - self.champion

    @property
    def identical(self) -> bool:
        """Whether both score the same on every patient."""
        return all(candidate == champion for candidate, champion in self.pairs.values())


@dataclass(frozen=True)
class Decision:
    """The outcome and why, in words with numbers."""

    promoted: bool
    reason: str


def compare(
    candidate: Sequence[PatientScore], champion: Sequence[PatientScore], settings: RegisterSettings
) -> Comparison:
    """Compares two models patient by patient.

    Args:
        candidate: Scores of at least two patients.
        champion: Scores of the same patients, in any order.
        settings: How to compare.
    """
    by_volume = {score.volume: score.dice for score in champion}
    pairs = {score.volume: (score.dice, by_volume[score.volume]) for score in candidate}
    dice = np.array(list(pairs.values()))
    low, high = mean_interval(
        (dice[:, 0] - dice[:, 1]).tolist(),
        settings.confidence,
        settings.bootstrap_resamples,
        settings.seed,
    )
    return Comparison(
        candidate=float(dice[:, 0].mean()),
        champion=float(dice[:, 1].mean()),
        low=low,
        high=high,
        groups=tuple(
            _group_difference(name, [pairs[score.volume] for score in scores], settings)
            for name, scores in group(candidate).items()
        ),
        pairs=pairs,
    )


def decide_first(metrics: Mapping[str, float]) -> Decision:
    """Decides about a candidate when there is no champion.

    Args:
        metrics: What evaluate measured on the test patients.

    Raises:
        UserError: If a metric is missing.
    """
    objections = _baseline_objections(metrics)
    if objections:
        return _refuse(objections)
    return Decision(True, f"there was no champion; {_against_baseline(metrics)}")


def decide(
    metrics: Mapping[str, float],
    comparison: Comparison,
    champion: str,
    settings: RegisterSettings,
) -> Decision:
    """Decides between a candidate and the champion.

    Args:
        metrics: What evaluate measured for the candidate on the test patients.
        comparison: Both on the patients that the champion has not learned from.
        champion: What the champion is called, e.g. `version 3`.
        settings: The rules.

    Raises:
        UserError: If a metric is missing.
    """
    if comparison.identical:
        return _refuse([f"same scores on every patient as {champion}, which stays champion"])
    objections = [
        *_baseline_objections(metrics),
        *_mean_objections(comparison, settings),
        *_group_objections(comparison, settings),
    ]
    against = _against_champion(comparison, champion, settings)
    skipped = _skipped_groups(comparison, settings)
    if objections:
        return _refuse([*objections, against, *skipped])
    which = f"group of at least {settings.min_group_patients} patients" if skipped else "group"
    floor = f"no {which} falls by more than {settings.group_floor:.3f}"
    return Decision(True, "; ".join([against, floor, *skipped]))


def too_few(unseen: int, champion: str) -> Decision | None:
    """Refuses to compare on patients that the champion has learned from.

    Args:
        unseen: Test patients that are new to the champion.
        champion: What the champion is called.
    """
    if unseen >= _FEWEST_PATIENTS:
        return None
    return _refuse(
        [
            f"{unseen} of the test patients are new to {champion}, and a comparison takes at "
            f"least {_FEWEST_PATIENTS}; add patients, and keep its test patients apart by giving "
            "its split as `split.previous`"
        ]
    )


def _group_difference(
    name: str, pairs: Sequence[tuple[float, float]], settings: RegisterSettings
) -> GroupDifference:
    candidate, champion = np.mean(pairs, axis=0).tolist()
    decides = len(pairs) >= settings.min_group_patients
    return GroupDifference(name, len(pairs), candidate, champion, decides)


def _baseline_objections(metrics: Mapping[str, float]) -> list[str]:
    _require(metrics)
    return [
        f"{name} {metrics[name]:.3f} is not better than the {metrics[name + BASELINE_SUFFIX]:.3f} "
        "of an all-empty prediction"
        for name in _HEADLINES
        if metrics[name] <= metrics[name + BASELINE_SUFFIX]
    ]


def _require(metrics: Mapping[str, float]) -> None:
    wanted = [name + suffix for name in _HEADLINES for suffix in ("", BASELINE_SUFFIX)]
    missing = [name for name in wanted if name not in metrics]
    if missing:
        raise UserError(f"the metrics lack {', '.join(missing)}; give those that evaluate wrote")


def _mean_objections(comparison: Comparison, settings: RegisterSettings) -> list[str]:
    if comparison.low <= -settings.margin:
        return [f"it may be worse by more than the margin of {settings.margin:.3f}"]
    if comparison.high < 0:  # inside the margin, but a loss that no chance explains
        return ["it is worse, if by less than the margin"]
    return []


def _group_objections(comparison: Comparison, settings: RegisterSettings) -> list[str]:
    return [
        f"{_fall(one)}, by more than {settings.group_floor:.3f}"
        for one in comparison.groups
        if one.decides and one.difference < -settings.group_floor
    ]


def _skipped_groups(comparison: Comparison, settings: RegisterSettings) -> list[str]:
    skipped = [one for one in comparison.groups if not one.decides]
    fallen = [_fall(one) for one in skipped if one.difference < 0]
    if not skipped:
        return []
    return [
        f"groups of fewer than {settings.min_group_patients} patients do not decide: "
        f"{', '.join(one.group for one in skipped)}; of these, {', '.join(fallen) or 'none falls'}"
    ]


def _fall(one: GroupDifference) -> str:
    people = "1 patient" if one.patients == 1 else f"{one.patients} patients"
    return f"{one.group} falls from {one.champion:.3f} to {one.candidate:.3f} ({people})"


def _against_baseline(metrics: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name} {metrics[name]:.3f} (all-empty prediction {metrics[name + BASELINE_SUFFIX]:.3f})"
        for name in _HEADLINES
    )


def _against_champion(comparison: Comparison, champion: str, settings: RegisterSettings) -> str:
    return (
        f"patient Dice {comparison.candidate:.3f} against {comparison.champion:.3f} of {champion} "
        f"on the same {len(comparison.pairs)} patients, difference {comparison.difference:+.3f} "
        f"({settings.confidence:.0%} interval {comparison.low:+.3f} to {comparison.high:+.3f}, "
        f"margin -{settings.margin:.3f})"
    )


def _refuse(objections: Sequence[str]) -> Decision:
    return Decision(False, "; ".join(objections))
