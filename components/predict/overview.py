"""HTML page of all predictions of a model version."""

from collections.abc import Callable, Mapping, Sequence

from components.predict.planning import InferencePlan
from components.predict.stored import CaseRow
from components.shared.report.page import (
    Block,
    Cell,
    Figures,
    Notice,
    Section,
    Table,
    render_page,
)

_COLUMNS: Mapping[str, Callable[[CaseRow], Cell]] = {
    "case": lambda row: row.volume,
    "site": lambda row: row.site,
    "date": lambda row: row.date,
    "tumour px": lambda row: row.tumour_pixels,
    "tumour ml": lambda row: row.tumour_ml,
    "confidence": lambda row: row.confidence,
    "entropy": lambda row: row.mean_entropy,
    "flip": lambda row: row.flip_disagreement,
    "intensity": lambda row: row.intensity_score,
    "parts": lambda row: row.components,
    "flags": lambda row: ", ".join(row.flags),
    "seconds": lambda row: row.seconds,
    "predicted": lambda row: f"{row.predicted_at:%Y-%m-%d %H:%M}",
}


def render_overview(plan: InferencePlan, rows: Sequence[CaseRow], pipeline_run: str) -> str:
    """Renders the page: the cases of a run, then those of all runs of the version.

    Args:
        plan: Plan of the run.
        rows: Rows of all runs.
        pipeline_run: Id of the run.
    """
    predicted = [row for row in rows if row.status == "ok"]
    refused = [row for row in rows if row.status == "refused"]
    new = [row for row in predicted if row.pipeline_run == pipeline_run]
    older = [row for row in predicted if row.pipeline_run != pipeline_run]
    sections = [
        Section("Summary", _summary(plan, new, older, refused)),
        Section("Cases of this run", [Table.of(_worst_first(new), _COLUMNS)]),
        Section("Cases of earlier runs", [Table.of(_worst_first(older), _COLUMNS)]),
    ]
    if refused:
        cells = [(row.volume, row.reason, row.source) for row in refused]
        sections.append(Section("Refused cases", [Table(("case", "reason", "source"), cells)]))
    return render_page("Predictions", f"model {plan.model}, source {plan.source}", sections)


def _summary(
    plan: InferencePlan,
    new: Sequence[CaseRow],
    older: Sequence[CaseRow],
    refused: Sequence[CaseRow],
) -> list[Block]:
    flagged = sum(bool(row.flags) for row in new)
    missing = len(plan.cases) - len(new) - len({row.volume for row in refused} & {*plan.cases})
    figures = [
        ("cases predicted", f"{len(new):,}", "in this run"),
        ("flagged", f"{flagged:,}", "of them"),
        ("known before", f"{plan.known:,}", "of this source"),
        ("predicted by earlier runs", f"{len(older):,}", "of all sources"),
        ("refused", f"{len(refused):,}", "see Refused cases" if refused else ""),
    ]
    blocks: list[Block] = [Figures(figures)]
    if missing > 0:
        text = f"Planned cases that another run has predicted, or that are gone: {missing}."
        blocks.append(Notice("warning", text))
    blocks.append("These predictions are for research and are not a diagnosis.")
    return blocks


def _worst_first(rows: Sequence[CaseRow]) -> list[CaseRow]:
    return sorted(rows, key=lambda row: (-len(row.flags), -(row.mean_entropy or 0), row.volume))
