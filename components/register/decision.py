"""Rules that decide whether a candidate replaces the champion, with reasons in words.

The decision is a test of non-inferiority: a candidate replaces the champion unless it may be worse
by more than a margin. `python -m tests.benchmarks.gate` simulates what these rules accept and
reject on small test sets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.register.settings import RegisterSettings
from components.shared.errors import UserError
from components.shared.scoring.comparison import DETECTION_POWER, Comparison, GroupDifference
from components.shared.scoring.metrics import BASELINE_SUFFIX, METRICS, THRESHOLD

_FEWEST_PATIENTS = 2  # fewer give no interval
HEADLINES = tuple(metric.name for metric in METRICS if metric.champion_beats_baseline)
FLOORED = tuple(metric.name for metric in METRICS if metric.has_floor)
GROUP_ERRORS = 2  # standard errors that a group's fall must exceed: one is often chance


@dataclass(frozen=True)
class Decision:
    """Outcome and reason, in words with numbers."""

    promoted: bool
    reason: str


def require_metrics(metrics: Mapping[str, float]) -> None:
    """Checks that the metrics include all that the rules and the version need.

    Raises:
        UserError: If a metric is missing.
    """
    baselines = [name + BASELINE_SUFFIX for name in HEADLINES]
    wanted = dict.fromkeys([*HEADLINES, *FLOORED, *baselines, THRESHOLD])
    missing = [name for name in wanted if name not in metrics]
    if missing:
        raise UserError(f"the metrics lack {', '.join(missing)}; pass the file that evaluate wrote")


def decide_first(metrics: Mapping[str, float], settings: RegisterSettings) -> Decision:
    """Decides about a candidate if there is no champion."""
    objections = _own_objections(metrics, settings)
    if objections:
        return _refuse(objections)
    return Decision(True, f"there was no champion; {_against_baseline(metrics)}")


def decide(
    metrics: Mapping[str, float],
    comparison: Comparison,
    champion: str,
    settings: RegisterSettings,
) -> Decision:
    """Decides between a candidate and the champion: the candidate must not be inferior.

    Args:
        metrics: Metrics of evaluate for the candidate on the test patients.
        comparison: Comparison on patients that neither was trained on.
        champion: Name of the champion, e.g. `version 3`.
        settings: Limits of the rules.
    """
    if comparison.identical:
        return _refuse([f"same scores on every patient as {champion}, which remains champion"])
    objections = [
        *_own_objections(metrics, settings),
        *_mean_objections(comparison, settings),
        *_group_objections(comparison, settings),
    ]
    against = _against_champion(comparison, champion, settings)
    skipped = _skipped_groups(comparison, settings)
    if objections:
        return _refuse([*objections, against, *skipped])
    which = f"group of at least {settings.min_group_patients} patients" if skipped else "group"
    floor = (
        f"no {which} falls by more than {settings.group_floor:.3f} and {GROUP_ERRORS} standard "
        "errors"
    )
    return Decision(True, "; ".join([against, floor, *skipped]))


def too_few(unseen: int, champion: str) -> Decision | None:
    """Rejects a candidate if too few of the test patients, `unseen`, are new to the champion."""
    if unseen >= _FEWEST_PATIENTS:
        return None
    return _refuse(
        [
            f"{unseen} of the test patients are new to {champion}, but a comparison needs at "
            f"least {_FEWEST_PATIENTS}; add patients, and set `split.previous` to its split, so "
            "that its test patients are never trained on"
        ]
    )


def not_comparable(champion: str, reason: str) -> Decision:
    """Rejects a candidate whose champion is of another kind of data."""
    return _refuse(
        [
            f"{champion} is not comparable: {reason}; register models of such data under a name of "
            "their own (register.model_name), or remove the alias champion in MLflow: the next "
            "accepted model becomes champion as a first one does"
        ]
    )


def is_deciding(one: GroupDifference, settings: RegisterSettings) -> bool:
    """Returns True if a group is large enough to stop a promotion."""
    return one.patients >= settings.min_group_patients


def falls(one: GroupDifference, settings: RegisterSettings) -> bool:
    """Returns True if a group falls by more than the floor, and by more than chance explains."""
    error = one.standard_error or 0.0
    return -one.difference > max(settings.group_floor, GROUP_ERRORS * error)


def _own_objections(metrics: Mapping[str, float], settings: RegisterSettings) -> list[str]:
    floor = settings.min_patient_dice
    return [
        f"{name} {metrics[name]:.3f} is not better than the {metrics[name + BASELINE_SUFFIX]:.3f} "
        "of an all-empty prediction"
        for name in HEADLINES
        if metrics[name] <= metrics[name + BASELINE_SUFFIX]
    ] + [
        f"{name} {metrics[name]:.3f} is below the {floor:.3f} that any champion must reach "
        "(register.min_patient_dice)"
        for name in FLOORED
        if metrics[name] < floor
    ]


def _mean_objections(comparison: Comparison, settings: RegisterSettings) -> list[str]:
    if comparison.low <= -settings.margin:
        return [f"it may be worse by more than the margin of {settings.margin:.3f}"]
    if comparison.high < 0:  # within the margin, but many such steps would add up
        return ["it is worse, although by less than the margin"]
    return []


def _group_objections(comparison: Comparison, settings: RegisterSettings) -> list[str]:
    return [
        f"{_fall(one)}, by more than {settings.group_floor:.3f} and {GROUP_ERRORS} standard errors"
        for one in comparison.groups
        if is_deciding(one, settings) and falls(one, settings)
    ]


def _skipped_groups(comparison: Comparison, settings: RegisterSettings) -> list[str]:
    skipped = [one for one in comparison.groups if not is_deciding(one, settings)]
    fallen = [_fall(one) for one in skipped if one.difference < 0]
    if not skipped:
        return []
    return [
        f"groups of fewer than {settings.min_group_patients} patients do not decide: "
        f"{', '.join(one.group for one in skipped)}; of these, {', '.join(fallen) or 'none falls'}"
    ]


def _fall(one: GroupDifference) -> str:
    people = "1 patient" if one.patients == 1 else f"{one.patients} patients"
    return f"{one.group} falls from {one.reference:.3f} to {one.candidate:.3f} ({people})"


def _against_baseline(metrics: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name} {metrics[name]:.3f} (all-empty prediction {metrics[name + BASELINE_SUFFIX]:.3f})"
        for name in HEADLINES
    )


def _against_champion(comparison: Comparison, champion: str, settings: RegisterSettings) -> str:
    return (
        f"patient Dice {comparison.candidate:.3f} against {comparison.reference:.3f} of {champion} "
        f"on the same {len(comparison.pairs)} patients, difference {comparison.difference:+.3f} "
        f"(one-sided {comparison.confidence:.0%} bound {comparison.low:+.3f}, margin "
        f"-{settings.margin:.3f}); these patients show a true difference of "
        f"{comparison.detectable:.3f} with {DETECTION_POWER:.0%} power"
    )


def _refuse(objections: Sequence[str]) -> Decision:
    return Decision(False, "; ".join(objections))
