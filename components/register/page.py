"""The page of a decision: one HTML file that needs no network."""

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

_MANY_USES = 10  # of one test set against one champion, from which on the page warns


def render_decision(record: DecisionRecord) -> str:
    """Renders the page of a decision, whatever it was and with a champion or without."""
    comparison = record.comparison
    sections = [Section("Decision", _decision(record))]
    if comparison:
        sections += [
            Section("Patient by patient", _picture(record, comparison)),
            Section("What these patients can tell", _power(record, comparison)),
            Section("By tumour size and site", _groups(record, comparison)),
        ]
    sections.append(Section("The candidate alone", _alone(record)))
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
    return [*blocks, f"The reason: {record.reason}."]


def _headline(record: DecisionRecord) -> str:
    version = f"Version {record.model_version}"
    champion = record.champion_version
    if not record.promoted:
        stays = f"version {champion} stays champion" if champion else "there is no champion"
        return f"{version} is not promoted: {stays}."
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
            ("margin", f"-{record.settings.margin:.3f}", "the lower bound must lie above"),
            ("patients", str(len(comparison.pairs)), _patients_note(record)),
        ]
    )


def _patients_note(record: DecisionRecord) -> str:
    if record.champion_origin_known:
        return "that neither has learned from"
    return "the champion may have learned from some: what it was trained on is not in the store"


def _picture(record: DecisionRecord, comparison: Comparison) -> list[Block]:
    worse = sum(one < other for one, other in comparison.pairs.values())
    figure = paired_differences(comparison, _champion(record), record.settings.margin)
    return [
        Picture(
            draw(figure),
            f"Left: a line is a patient, from the champion's Dice to the candidate's; {worse} of "
            f"{len(comparison.pairs)} fall. Right: the same differences as points, and below them "
            "their mean between its one-sided bounds. The candidate is non-inferior if the left "
            "bound lies right of the margin.",
        )
    ]


def _power(record: DecisionRecord, comparison: Comparison) -> list[Block]:
    margin = record.settings.margin
    needed = _patients_needed(comparison, margin)
    chance = comparison.chance_of_equal(margin)
    figures = Figures(
        [
            (
                "least difference shown",
                f"{comparison.detectable:.3f}",
                f"with {DETECTION_POWER:.0%} power",
            ),
            ("an equal model passes", f"{chance:.0%}", "of the time, by the margin alone"),
            (
                "patients needed",
                "-" if needed is None else f"about {needed:,}",
                f"for an equal model to pass {DETECTION_POWER:.0%} of the time",
            ),
            (
                "earlier decisions",
                str(record.earlier_decisions),
                f"against {_champion(record)}; {record.earlier_on_same_patients} on these patients",
            ),
        ]
    )
    return [figures, _reuse(record)]


def _reuse(record: DecisionRecord) -> Block:
    text = (
        f"Decisions against {_champion(record)} before this one: {record.earlier_decisions}, of "
        f"these on the very same patients: {record.earlier_on_same_patients}. A champion that was "
        "chosen on the same patients again and again was partly chosen by luck: it scores above "
        "its true mean on them, and a model that is better in truth may be refused."
    )
    many = record.earlier_on_same_patients >= _MANY_USES
    return Notice("warning", f"{text} New test patients would help.") if many else text


def _groups(record: DecisionRecord, comparison: Comparison) -> list[Block]:
    settings = record.settings
    columns = ("group", "patients", "candidate", "champion", "difference", "2 standard errors")
    rows = [
        (
            one.group.replace("/", " "),
            one.patients,
            one.candidate,
            one.reference,
            one.difference,
            None if one.standard_error is None else GROUP_ERRORS * one.standard_error,
            _verdict(one, record),
        )
        for one in comparison.groups
    ]
    return [
        f"A group of at least {settings.min_group_patients} patients refuses the candidate if it "
        f"falls by more than {settings.group_floor:.3f} and by more than {GROUP_ERRORS} standard "
        "errors of its mean difference. Smaller ones are shown and do not decide.",
        Table((*columns, "verdict"), rows),
    ]


def _verdict(one: GroupDifference, record: DecisionRecord) -> str:
    if not is_deciding(one, record.settings):
        return "too few to decide"
    return "refuses" if falls(one, record.settings) else "passes"


def _alone(record: DecisionRecord) -> list[Block]:
    metrics, floor = record.metrics, record.settings.min_patient_dice
    rows = [
        (
            name,
            metrics[name],
            metrics.get(name + BASELINE_SUFFIX),
            floor if name in FLOORED else None,
        )
        for name in dict.fromkeys([*HEADLINES, *FLOORED])
    ]
    return [
        f"Over all {metrics['patients']:.0f} test patients, as evaluated (mean patient Dice: "
        f"{interval_in_words(metrics)}). Any champion must do better than a prediction that marks "
        "nothing, and reach the floor.",
        Table(("figure", "candidate", "all-empty prediction", "floor"), rows),
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
        "Greatest loss first; a click on a column's head sorts by it.",
        Table(("volume", "candidate", "champion", "difference"), rows),
    ]


def _rules(record: DecisionRecord) -> list[Block]:
    settings = record.settings
    scored = f"The candidate was scored with a threshold of {record.threshold:g}"
    if record.champion_threshold is None:
        return [f"{scored}. The next candidate will be compared with the champion of that time."]
    return [
        "The comparison is a test of non-inferiority: the candidate replaces the champion unless "
        f"it may be worse by more than the margin of {settings.margin:.3f} (register.margin). "
        f"That is judged by a one-sided {settings.bound_confidence:.0%} bound of the mean paired "
        "difference: a t bound, made on the logit scale of the range from -1 to 1. A candidate "
        "whose upper bound is below zero is refused too: it is worse, and such steps add up. "
        "With the same scores on every patient the champion stays.",
        f"Compared were {_compared_on(settings.compare_on)} (register.compare_on="
        f"{settings.compare_on}). {scored}, the champion with its own of "
        f"{record.champion_threshold:g}.",
        "The least difference shown is (t of the confidence + t of the power) x standard error, "
        "with the spread of the differences that was seen here.",
    ]


def _compared_on(compare_on: str) -> str:
    test = "the test patients that are new to the champion"
    if compare_on == "test":
        return test
    return f"{test}, and the champion's own test patients that are not in this data set"


def _champion(record: DecisionRecord) -> str:
    return f"version {record.champion_version}"


def _patients_needed(comparison: Comparison, margin: float) -> int | None:
    # by the normal approximation of the same test
    if margin == 0:
        return None
    variance = comparison.standard_error**2 * len(comparison.pairs)
    reach = float(norm.ppf([comparison.confidence, DETECTION_POWER]).sum())
    return max(2, math.ceil(reach**2 * variance / margin**2))
