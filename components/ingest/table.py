"""Joins the genomic and clinical columns of `data.csv` to the volumes."""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from components.shared.dataset.manifest import VolumeEntry
from components.shared.reading.sources.source import Source, SourceFile, UnreadableFileError
from components.shared.reading.tcga import ATTRIBUTE_FILE, ATTRIBUTES, PATIENT_COLUMN

Value = float | str | None
Row = Mapping[str, Value]

_READ = f"{ATTRIBUTE_FILE}: read as attributes"
_UNREADABLE = f"{ATTRIBUTE_FILE}: cannot be read"
_COPIES_DIFFER = f"{ATTRIBUTE_FILE}: copies differ"
_COPY = "identical copy"
_SHOWN = 5


@dataclass(frozen=True)
class AttributeTable:
    """The columns of `data.csv` by patient.

    Attributes:
        columns: All but `Patient`; empty without a readable table.
        rows: The patients' values.
        files: Number of files called `data.csv`, by what was done with them.
        warnings: Irregularities of the table, one sentence each.
    """

    columns: tuple[str, ...] = ()
    rows: Mapping[str, Row] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def read_attributes(
    source: Source, files: Sequence[SourceFile], max_file_mib: float
) -> AttributeTable:
    """Reads the table; whatever is wrong with it becomes a warning, never an error.

    Args:
        source: Source of the files.
        files: All files called `data.csv`.
        max_file_mib: Larger files are not read.
    """
    if not files:
        return AttributeTable(warnings=(f"no {ATTRIBUTE_FILE}: attributes are empty",))
    try:
        texts = {_read(source, file, max_file_mib) for file in files}
    except UnreadableFileError as error:
        return AttributeTable(
            files={_UNREADABLE: len(files)}, warnings=(f"{error}; attributes are left empty",)
        )
    if len(texts) > 1:
        paths = ", ".join(file.path for file in files)
        return AttributeTable(
            files={_COPIES_DIFFER: len(files)},
            warnings=(f"{paths} differ; attributes are left empty",),
        )
    return _parse(texts.pop(), len(files))


def join_attributes(
    entries: Iterable[VolumeEntry], table: AttributeTable, patients: Iterable[str]
) -> tuple[list[VolumeEntry], list[str]]:
    """Puts each patient's row into the volumes' entries.

    Args:
        entries: Accepted volumes.
        table: Result of `read_attributes`.
        patients: All patients of the source, quarantined ones too.

    Returns:
        The entries with attributes, and all warnings.
    """
    empty: Row = dict.fromkeys(table.columns)
    joined = [
        entry.model_copy(update={"attributes": dict(table.rows.get(entry.patient, empty))})
        for entry in entries
    ]
    without = [entry.patient for entry in joined if entry.patient not in table.rows]
    absent = sorted(table.rows.keys() - set(patients))
    warnings = list(table.warnings)
    if absent:
        warnings.append(f"{ATTRIBUTE_FILE}: no volume for {_some(absent, 'row')}")
    if without and table.columns:
        warnings.append(f"{ATTRIBUTE_FILE}: no row for {_some(without, 'patient')}; left empty")
    return joined, warnings


def _read(source: Source, file: SourceFile, max_file_mib: float) -> str:
    if file.size > max_file_mib * 2**20:
        raise UnreadableFileError(f"{file.path}: larger than max_file_mib={max_file_mib:g}")
    try:
        return source.read(file.path).decode("utf-8-sig")  # Excel writes the signature
    except UnicodeDecodeError as error:
        raise UnreadableFileError(f"{file.path}: not UTF-8 text") from error
    except UnreadableFileError as error:
        raise UnreadableFileError(f"{file.path}: {error}") from error


def _parse(text: str, copies: int) -> AttributeTable:
    try:
        head, *lines = list(csv.reader(io.StringIO(text), strict=True)) or [[]]
    except csv.Error as error:
        return _unreadable(f"not a CSV table ({error})", copies)
    if PATIENT_COLUMN not in head or len(set(head)) != len(head):
        shown = ", ".join(head) or "none"
        return _unreadable(
            f"needs one column {PATIENT_COLUMN!r} and no column twice; found {shown}", copies
        )
    warnings = _Warnings()
    missing = [column for column in ATTRIBUTES if column not in head]
    if missing:
        warnings.add(f"no column {', '.join(missing)}; left empty")
    rows = _rows(head, lines, warnings)
    columns = tuple(
        dict.fromkeys([*ATTRIBUTES, *(column for column in head if column != PATIENT_COLUMN)])
    )
    return AttributeTable(
        columns=columns,
        rows={patient: _values(row, columns, warnings) for patient, row in rows.items()},
        files={_READ: 1} | ({_COPY: copies - 1} if copies > 1 else {}),
        warnings=warnings.sentences(),
    )


def _unreadable(reason: str, copies: int) -> AttributeTable:
    warning = f"{ATTRIBUTE_FILE}: {reason}; attributes are left empty"
    return AttributeTable(files={_UNREADABLE: copies}, warnings=(warning,))


def _rows(
    head: Sequence[str], lines: Iterable[Sequence[str]], warnings: "_Warnings"
) -> dict[str, dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    for number, line in enumerate(lines, start=2):
        if not any(cell.strip() for cell in line):
            continue
        row = {column: cell.strip() for column, cell in zip(head, line, strict=False)}
        patient = row.pop(PATIENT_COLUMN, "")
        if len(line) != len(head) or not patient:
            warnings.collect("broken row, left out", f"line {number}")
        elif rows.setdefault(patient, row) != row:
            warnings.collect("rows of one patient that differ, left empty", patient)
            rows[patient] = {}
        elif rows[patient] is not row:
            warnings.collect("row that occurs twice", patient)
    return rows


def _values(row: Mapping[str, str], columns: Sequence[str], warnings: "_Warnings") -> Row:
    values: dict[str, Value] = {}
    for column in columns:
        cell = row.get(column, "")
        values[column] = _value(cell)
        if column in ATTRIBUTES and isinstance(values[column], str):
            warnings.collect(f"column {column}: not a number, left empty", repr(cell))
            values[column] = None
    return values


def _value(cell: str) -> Value:
    if not cell:
        return None
    try:
        number = float(cell)
    except ValueError:
        return cell
    return number if math.isfinite(number) else cell


def _some(names: Sequence[str], what: str) -> str:
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"{len(names)} {what}{'s' if len(names) > 1 else ''}: {shown}"


class _Warnings:
    """Sentences about the table; the same problem in many places makes one sentence."""

    def __init__(self) -> None:
        self._sentences: list[str] = []
        self._places: dict[str, list[str]] = defaultdict(list)

    def add(self, sentence: str) -> None:
        self._sentences.append(f"{ATTRIBUTE_FILE}: {sentence}")

    def collect(self, problem: str, place: str) -> None:
        self._places[problem].append(place)

    def sentences(self) -> tuple[str, ...]:
        places = (
            f"{ATTRIBUTE_FILE}: {problem}: {_some(places, 'time')}"
            for problem, places in self._places.items()
        )
        return (*self._sentences, *places)
