"""HTML page of a decision."""

import math

from scipy.stats import norm

from components.register.charts import paired_differences
from components.register.decision import FLOORED, GROUP_ERRORS, HEADLINES, falls, is_deciding
from components.register.record import DecisionRecord
from components.shared.report.page import (
    Block,
    Figures,
    Notice,
    Picture,
    Section,
    Table,
    draw,
    render_page,
)
from components.shared.scoring.comparison import DETECTION_POWER, Comparison, GroupDifference
from components.shared.scoring.metrics import BASELINE_SUFFIX, interval_in_words

_MANY_USES = 10  # comparisons with one champion on one test set from which the page warns


def render_decision(record: DecisionRecord) -> str:
    """Renders the page of a decision, with or without a champion."""
    comparison = record.comparison
    sections = [Section("Decision", _decision(record))]
    if comparison:
        sections += [
            Section("Patient by patient", _picture(record, comparison)),
            Section("Power of the comparison", _power(record, comparison)),
            Section("By tumour size and site", _groups(record, comparison)),
        ]
    sections.append(Section("The candidate alone", _alone(record)))
    if record.further:
        sections.append(Section("Further targets", _further_targets(record)))
    if comparison:
        sections.append(Section("Patients", _patients(comparison)))
    sections.append(Section("The rules", _rules(record)))
    return render_page(
        "Decision about a model",
        f"version {record.model_version} of {record.model_name}, data set {record.dataset_id}, "
        f"split {record.split_id}",
        sections,
    )


def _decision(record: DecisionRecord) -> list[Block]:
    kind = "good" if record.promoted else "bad"
    blocks: list[Block] = [Notice(kind, _headline(record))]
    if record.comparison:
        blocks.append(_figures(record, record.comparison))
    blocks.append(f"Reason: {record.reason}.")
    if len(record.targets) > 1:
        blocks.append(f"The decision is by {record.targets[0]}, the first of the targets.")
    if record.started_from:
        blocks.append(f"The candidate started from the weights of {record.started_from}.")
    return blocks


def _headline(record: DecisionRecord) -> str:
    version = f"Version {record.model_version}"
    champion = record.champion_version
    if not record.promoted:
        outcome = f"version {champion} remains champion" if champion else "there is no champion"
        return f"{version} is not promoted: {outcome}."
    return f"{version} replaces version {champion}." if champion else f"{version} is champion."


def _figures(record: DecisionRecord, comparison: Comparison) -> Figures:
    confidence = f"one-sided {comparison.confidence:.0%} bounds"
    return Figures(
        [
            ("candidate", f"{comparison.candidate:.3f}", "mean patient Dice"),
            ("champion", f"{comparison.reference:.3f}", f"{_champion(record)}, same patients"),
            (
                "difference",
                f"{comparison.difference:+.3f}",
                f"{confidence} {comparison.low:+.3f} and {comparison.high:+.3f}",
            ),
            ("margin", f"-{record.settings.margin:.3f}", "the lower bound must be above"),
            ("patients", str(len(comparison.pairs)), _patients_note(record)),
        ]
    )


def _patients_note(record: DecisionRecord) -> str:
    if record.champion_origin_known:
        return "that neither model was trained on"
    return "the champion may be trained on some: its training data are not in the store"


def _picture(record: DecisionRecord, comparison: Comparison) -> list[Block]:
    worse = sum(one < other for one, other in comparison.pairs.values())
    figure = paired_differences(comparison, _champion(record), record.settings.margin)
    return [
        Picture(
            draw(figure),
            f"Left: a line is a patient, from the champion's Dice to the candidate's; {worse} of "
            f"{len(comparison.pairs)} fall. Right: the same differences as points, and below them "
            "their mean with its one-sided bounds. The candidate is non-inferior if the lower "
            "bound is right of the margin.",
        )
    ]


def _power(record: DecisionRecord, comparison: Comparison) -> list[Block]:
    margin, power = record.settings.margin, f"{DETECTION_POWER:.0%}"
    needed = _patients_needed(comparison, margin)
    count = "-" if needed is None else f"about {needed:,}"
    chance = f"{comparison.chance_of_equal(margin):.0%}"
    uses = f"against {_champion(record)}; {record.earlier_on_same_patients} on these patients"
    figures = [
        ("detectable difference", f"{comparison.detectable:.3f}", f"with {power} power"),
        ("an equal model passes", chance, "of the time, counting only the margin"),
        ("patients needed", count, f"for an equal model to pass {power} of the time"),
        ("earlier decisions", str(record.earlier_decisions), uses),
    ]
    return [Figures(figures), _reuse(record)]


def _reuse(record: DecisionRecord) -> Block:
    text = (
        f"Earlier decisions against {_champion(record)}: {record.earlier_decisions}, of these on "
        f"exactly the same patients: {record.earlier_on_same_patients}. A champion that is chosen "
        "repeatedly on the same patients is partly chosen by luck: it scores above its true mean "
        "on them, so a better model may be rejected."
    )
    many = record.earlier_on_same_patients >= _MANY_USES
    return Notice("warning", f"{text} Add new test patients.") if many else text


def _groups(record: DecisionRecord, comparison: Comparison) -> list[Block]:
    settings = record.settings
    return [
        f"A group of at least {settings.min_group_patients} patients rejects the candidate if it "
        f"falls by more than {settings.group_floor:.3f} and by more than {GROUP_ERRORS} standard "
        "errors of its mean difference. Smaller groups are shown, but do not decide.",
        Table.of(
            comparison.groups,
            {
                "group": lambda one: one.group.replace("/", " "),
                "patients": lambda one: one.patients,
                "candidate": lambda one: one.candidate,
                "champion": lambda one: one.reference,
                "difference": lambda one: one.difference,
                f"{GROUP_ERRORS} standard errors": lambda one: (
                    None if one.standard_error is None else GROUP_ERRORS * one.standard_error
                ),
                "verdict": lambda one: _verdict(one, record),
            },
        ),
    ]


def _verdict(one: GroupDifference, record: DecisionRecord) -> str:
    if not is_deciding(one, record.settings):
        return "too few to decide"
    return "rejects" if falls(one, record.settings) else "passes"


def _alone(record: DecisionRecord) -> list[Block]:
    metrics, floors = record.metrics, dict.fromkeys(FLOORED, record.settings.min_patient_dice)
    starts = ["", *(f"{target}/" for target in record.targets[1:])]
    names = [f"{start}{name}" for start in starts for name in dict.fromkeys([*HEADLINES, *FLOORED])]
    rows = [
        (name, metrics.get(name), metrics.get(name + BASELINE_SUFFIX), floors.get(name))
        for name in names
    ]
    return [
        f"Metrics of the evaluation over all {metrics['patients']:.0f} test patients (mean patient "
        f"Dice: {interval_in_words(metrics)}). Every champion must be better than an all-empty "
        "prediction, and reach the floor.",
        Table(("figure", "candidate", "all-empty prediction", "floor"), rows),
    ]


def _further_targets(record: DecisionRecord) -> list[Block]:
    return [
        "Mean patient Dice on the same patients. These targets do not decide; low and high are "
        "one-sided bounds of the mean difference.",
        Table.of(
            record.further.items(),
            {
                "target": lambda one: one[0],
                "candidate": lambda one: one[1].candidate,
                "champion": lambda one: one[1].reference,
                "difference": lambda one: one[1].difference,
                "low": lambda one: one[1].low,
                "high": lambda one: one[1].high,
            },
        ),
    ]


def _patients(comparison: Comparison) -> list[Block]:
    rows = sorted(
        (
            (volume, candidate, reference, candidate - reference)
            for volume, (candidate, reference) in comparison.pairs.items()
        ),
        key=lambda row: row[3],
    )
    return [
        "Largest fall first; click on a column's head to sort by it.",
        Table(("volume", "candidate", "champion", "difference"), rows),
    ]


def _rules(record: DecisionRecord) -> list[Block]:
    settings = record.settings
    scored = f"The threshold of the candidate's scores is {record.threshold:g}"
    if record.champion_threshold is None:
        return [f"{scored}. There was no champion to compare with."]
    test = "the test patients that are new to the champion"
    if settings.compare_on == "all_unseen":
        test += ", and the champion's test patients that are not in this data set"
    return [
        "The comparison is a test of non-inferiority: the candidate replaces the champion unless "
        f"it may be worse by more than the margin of {settings.margin:.3f} (register.margin). "
        f"The criterion is a one-sided {settings.bound_confidence:.0%} bound of the mean paired "
        "difference: a t bound on the logit scale of the range from -1 to 1. A candidate whose "
        "upper bound is below zero is rejected too: it is worse, and such steps add up. If the "
        "scores are equal on every patient, the champion remains.",
        f"The models are compared on {test} (register.compare_on={settings.compare_on}). {scored}, "
        f"that of the champion's {record.champion_threshold:g}.",
        "The detectable difference is (t of the confidence + t of the power) x standard error, "
        "with the spread of the differences on these patients.",
    ]


def _champion(record: DecisionRecord) -> str:
    return f"version {record.champion_version}"


def _patients_needed(comparison: Comparison, margin: float) -> int | None:
    # normal approximation of the same test
    if margin == 0:
        return None
    variance = comparison.standard_error**2 * len(comparison.pairs)
    reach = float(norm.ppf([comparison.confidence, DETECTION_POWER]).sum())
    return max(2, math.ceil(reach**2 * variance / margin**2))
