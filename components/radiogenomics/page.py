"""HTML report of an analysis of shape and genomics."""

from collections.abc import Mapping, Sequence

from components.radiogenomics.association import Association
from components.radiogenomics.results import GROUPS, Analysis, Measured
from components.radiogenomics.shape import FEATURES
from components.shared.report.page import (
    Block,
    Cell,
    Figures,
    Notice,
    Section,
    Table,
    render_page,
    show,
)

_LEVEL = 0.05  # of p after correction
_FEW = 50  # patients: with fewer, a missing association says little

# From the abstract of Buda et al. 2019, arXiv:1906.03720: predicted masks of 110 patients.
_PAPER: Mapping[tuple[str, str], str] = {
    ("ellipsoid_ratio", "RNASeqCluster"): "p < 0.0002",
    ("margin_fluctuation", "RNASeqCluster"): "p < 0.005",
}


def render_analysis(found: Analysis, origin: str) -> str:
    """Renders the report.

    Args:
        found: Results.
        origin: Ids of data set, model and MLflow run in words.
    """
    agreement = [Section("Agreement", _agreement(found))] if found.agreement else []
    return render_page(
        "Tumour shape and genomic clusters",
        origin,
        [
            Section("Headline", _headline(found)),
            Section("Associations", _associations(found)),
            *agreement,
            Section("Masks", _masks(found)),
            Section("Definitions", _definitions()),
        ],
    )


def _headline(found: Analysis) -> list[Block]:
    cards = [
        (GROUPS[name], f"{_significant(tests)} of {len(tests)}", _patients(found, name))
        for name, tests in found.associations.items()
    ]
    return [
        "Associations that remain after correction for all tests of the same masks:",
        Figures(cards),
        *_warnings(found),
        "This is research on groups of patients. It says nothing about a single patient.",
    ]


def _significant(tests: Sequence[Association]) -> int:
    return sum(one.corrected is not None and one.corrected < _LEVEL for one in tests)


def _patients(found: Analysis, group: str) -> str:
    return f"{len(_in_group(found, group))} patients"


def _in_group(found: Analysis, group: str) -> set[str]:
    masks, _, which = group.partition("_")
    return {
        one.patient
        for one in found.measured
        if one.masks == masks and (one.is_unseen or which == "all")
    }


def _warnings(found: Analysis) -> list[Block]:
    if not found.agreement:
        return [Notice("warning", "No model was analyzed: all masks are those of experts.")]
    unseen = len(_in_group(found, "predicted_unseen"))
    if not unseen:
        text = "The model has seen every patient of this data set, so no mask was predicted."
        return [Notice("warning", text)]
    if unseen < _FEW:
        text = (
            f"Only {unseen} patients are unseen by the model. So few can show agreement, but "
            "hardly an association: compare predicted masks with the expert masks of the same "
            "patients."
        )
        return [Notice("warning", text)]
    return []


def _associations(found: Analysis) -> list[Block]:
    rows = list(zip(*found.associations.values(), strict=True))
    heads = [
        f"{head}, {GROUPS[name]}"
        for name in found.associations
        for head in ("patients", "p", "p corrected")
    ]
    table = [
        (
            FEATURES[row[0].feature],
            row[0].subtype,
            *(cell for one in row for cell in _cells(one)),
            _PAPER.get((row[0].feature, row[0].subtype)),
        )
        for row in rows
    ]
    return [
        "Fisher's exact test of each feature, split at the median, against the clusters. The "
        "correction is Bonferroni's, over all tests of the same masks.",
        "Paper: Buda et al. 2019 (arXiv:1906.03720), predicted masks of 110 patients, p before "
        "correction; significant below 0.005. Only the two values of its abstract that could be "
        "checked are shown. How it divided the features could not be checked either.",
        Table(("feature", "subtype", *heads, "paper"), table),
    ]


def _cells(one: Association) -> tuple[Cell, ...]:
    return one.patients, one.p, one.corrected


def _agreement(found: Analysis) -> list[Block]:
    table = Table.of(
        found.agreement.items(),
        {
            "feature": lambda item: FEATURES[item[0]],
            "unseen patients": lambda item: item[1].patients,
            "ICC(2,1)": lambda item: item[1].icc,
            "95 % interval": lambda item: f"{show(item[1].low)} to {show(item[1].high)}",
        },
    )
    return [
        "Expert and predicted masks of the same patients, none of whom the model was trained or "
        "selected on. 1 is perfect agreement.",
        table,
    ]


def _masks(found: Analysis) -> list[Block]:
    seen = _in_group(found, "expert_all") - _in_group(found, "expert_unseen")
    lines = ["A dash is an undefined value: an empty mask, or a tumour in one plane."]
    if found.agreement:
        lines.append(
            f"The model was trained or selected on {len(seen)} of these patients. Their masks were "
            "not predicted."
        )
    head = ("volume", "masks", "model", *FEATURES.values())
    rows = [_row(one, has_model=bool(found.agreement)) for one in found.measured]
    return [*lines, Table(head, rows)]


def _row(one: Measured, *, has_model: bool) -> tuple[Cell, ...]:
    seen = ("unseen" if one.is_unseen else "seen in training") if has_model else None
    return (one.volume, one.masks, seen, *(one.features[feature] for feature in FEATURES))


def _definitions() -> list[Block]:
    return [
        "All features are of the largest connected part of the tumour. Outline and centroid are "
        "those in the slice with the largest area, and distances from the centroid to the outline "
        "are divided by their mean.",
        "Angular standard deviation: standard deviation of the distances in each of ten sectors of "
        "equal angle, averaged. It is low for a circle.",
        "Margin fluctuation: standard deviation of the difference between the distances and their "
        "moving average over 10 % of the perimeter. It is low for a smooth outline.",
        "Bounding ellipsoid volume ratio: volume of the tumour over that of the smallest ellipsoid "
        "around the centers of its voxels. It is 1 for an ellipsoid, and lower for irregular "
        "tumours.",
        "The outline lies halfway between pixels inside and outside, at 1000 points of equal "
        "distance, so that the pixel size matters little. Where the spacing is unknown, pixels "
        "count as square.",
    ]
