"""Scores of patients as a CSV file."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import get_type_hints

from components.shared.errors import UserError
from components.shared.scoring.groups import size_thirds
from components.shared.scoring.scores import PATIENT_FIGURES, PatientScore, known_figures

_TARGET = "target"  # first column of a table of several targets


def write_patient_scores(
    scores: Mapping[str, Sequence[PatientScore]],
    path: Path,
    folds: Mapping[str, str] = {},
) -> None:
    """Writes one CSV row per target and volume; undefined figures stay blank.

    Columns in millimeters and milliliters exist if the geometry of any volume is known, the column
    `target` if there are several.

    Args:
        scores: Scores in the order of the rows by target, the first target first.
        path: New file.
        folds: Label of the fold by volume, for a last column; empty for a single test part.
    """
    figures = known_figures(score for some in scores.values() for score in some)
    columns = ("volume", "patient", "site", *figures)
    several = len(scores) > 1
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        last = ("size_third", "fold") if folds else ("size_third",)
        writer.writerow((*([_TARGET] if several else []), *columns, *last))
        for target, some in scores.items():
            thirds = size_thirds(some)
            for score in some:
                row = [getattr(score, column) for column in columns]
                fold = [folds[score.volume]] if folds else []
                first = [target] if several else []
                writer.writerow((*first, *row, thirds[score.volume], *fold))


def read_patient_scores(path: Path) -> list[PatientScore]:
    """Reads the first target's scores from a file that `write_patient_scores` wrote.

    Raises:
        UserError: If the file has another form.
    """
    return next(iter(read_target_scores(path).values()), [])


def read_target_scores(path: Path) -> dict[str, list[PatientScore]]:
    """Reads a file that `write_patient_scores` wrote.

    Returns:
        Scores by target, the first target first; a single target has the name "".

    Raises:
        UserError: If the file has another form.
    """
    scores: dict[str, list[PatientScore]] = {}
    with open(path, newline="", encoding="utf-8") as stream:
        try:
            for row in csv.DictReader(stream):
                scores.setdefault(row.get(_TARGET, ""), []).append(_parse_row(row))
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"{path} is not a table of patient scores as evaluate writes it: {error!r}"
            ) from error
    return scores


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
