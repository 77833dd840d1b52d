"""Scores of patients as a CSV file."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import get_type_hints

from components.shared.errors import UserError
from components.shared.scoring.groups import size_thirds
from components.shared.scoring.scores import PATIENT_FIGURES, PatientScore, known_figures


def write_patient_scores(
    scores: Sequence[PatientScore],
    path: Path,
    folds: Mapping[str, str] = {},
) -> None:
    """Writes one CSV row per volume; undefined figures stay blank.

    Columns in millimeters and milliliters exist if the geometry of any volume is known.

    Args:
        scores: Scores in the order of the rows.
        path: New file.
        folds: Label of the fold by volume, for a last column; empty for a single test part.
    """
    thirds = size_thirds(scores)
    columns = ("volume", "patient", "site", *known_figures(scores))
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow((*columns, "size_third", *(["fold"] if folds else [])))
        for score in scores:
            row = [getattr(score, column) for column in columns]
            fold = [folds[score.volume]] if folds else []
            writer.writerow((*row, thirds[score.volume], *fold))


def read_patient_scores(path: Path) -> list[PatientScore]:
    """Reads a file that `write_patient_scores` wrote.

    Raises:
        UserError: If the file has another form.
    """
    with open(path, newline="", encoding="utf-8") as stream:
        try:
            return [_parse_row(row) for row in csv.DictReader(stream)]
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"{path} is not a table of patient scores as evaluate writes it: {error!r}"
            ) from error


def _parse_row(row: dict[str, str]) -> PatientScore:
    parse: dict[object, Callable[[str], object]] = {
        str: str,
        int: int,
        float: float,
        float | None: lambda text: float(text) if text else None,
    }
    unknown = {name: "" for name, figure in PATIENT_FIGURES.items() if figure.needs_geometry}
    cells = unknown | row
    values = {name: parse[kind](cells[name]) for name, kind in get_type_hints(PatientScore).items()}
    # mypy sees a mapping of objects: `parse` gives each the type of its attribute
    return PatientScore(**values)  # type: ignore[arg-type]
